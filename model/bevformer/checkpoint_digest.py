"""The digest that a checkpoint carries in its own meta: what was read is what was written.

`meta["digest"]` has one sha256 for every part (state_dict, optimizer, ...) and one for the place in the run.
It is inside the file, so the two can never part; a file whose optimiser was taken off, as people do before
they publish one, still proves its weights.
"""

import hashlib
import json
from typing import Any, Dict, Mapping

import torch

from .errors import CheckpointError

PARTS = ("state_dict", "optimizer", "scaler")
PLACE = ("iter", "epoch", "seed", "infos_digest", "config_json", "world_size")


def digests(content: Mapping[str, Any]) -> Dict[str, str]:
    """{part: hex sha256} of the parts that `content` has."""
    found = {part: _digest(content[part]) for part in PARTS if part in content}
    meta = content.get("meta") or {}
    place = json.dumps({key: meta.get(key) for key in PLACE}, sort_keys=True)
    return dict(found, place=hashlib.sha256(place.encode()).hexdigest())


def check_digests(content: Mapping[str, Any], path: str) -> None:
    """Raises CheckpointError when a part is not what was written.  Other programs' files carry no digest."""
    meta = content.get("meta")
    stored = meta.get("digest") if isinstance(meta, dict) else None
    if not isinstance(stored, dict):
        return
    now = digests(content)
    other = [part for part, digest in now.items() if stored.get(part) not in (None, digest)]
    if other:
        raise CheckpointError(
            "%s is damaged: its %s not what was written" % (path, _are(other)),
            "The sha256 in its meta is another; the disk or a copy lost something, or a program changed it.",
            "Copy it again or use an earlier checkpoint; after a change on purpose, take meta['digest'] out.",
        )


def _are(parts: Any) -> str:
    return " and ".join(parts) + (" is" if len(parts) == 1 else " are")


def _digest(value: Any) -> str:
    total = hashlib.sha256()
    _add(total, value)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    """Nested dicts and lists; a tensor counts by type, shape and bytes."""
    if torch.is_tensor(value):
        total.update(("%s %s\n" % (value.dtype, tuple(value.shape))).encode())
        flat = value.detach().cpu().contiguous()
        if flat.dtype == torch.bfloat16:  # NumPy has none
            flat = flat.view(torch.int16)
        total.update(flat.numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            total.update(("%s:\n" % key).encode())
            _add(total, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            total.update(b"-\n")
            _add(total, item)
    else:
        total.update(("%r\n" % (value,)).encode())
