"""What a run was trained on, frame by frame: kept beside its checkpoints, so that a run that would go on with
other frames can say which, and what of them changed.
"""

import hashlib
import os
from typing import Any, Dict, List, Optional, Sequence

from .atomic import write_atomically

NAME = "frames.txt"
PARTS = ("time", "boxes", "poses")  # the columns after the token
WORDS = {"time": "another time or scene", "boxes": "other boxes", "poses": "other poses or calibration"}


def frame_lines(dataset: Any) -> List[str]:
    """`TOKEN TIME BOXES POSES` for every frame in order; behind the token each is 12 digits of a sha256.

    `dataset` gives the bytes of each part in `parts_of(index)`, and the token in `token_of(index)`.
    """
    lines = []
    for index in range(len(dataset)):
        parts = dataset.parts_of(index)
        digests = [hashlib.sha256(parts[name]).hexdigest()[:12] for name in PARTS]
        lines.append(" ".join([dataset.token_of(index)] + digests))
    return lines


def frames_digest(lines: Sequence[str]) -> str:
    """sha256 over all lines; empty where there are none."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def write_frames(folder: str, lines: Sequence[str]) -> None:
    """Beside the checkpoints.  Raises DiskError."""
    write_atomically(os.path.join(folder, NAME), "".join(line + "\n" for line in lines))


def read_frames(folder: str, digest: str) -> Optional[List[str]]:
    """The lines with this digest; None where they are not there, or not whole."""
    try:
        with open(os.path.join(folder, NAME), encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, ValueError):
        return None
    return lines if lines and frames_digest(lines) == digest else None


def frames_difference(then: Sequence[str], now: Sequence[str]) -> str:
    """`2 of 12 are missing, such as TOKEN; 1 has other boxes, such as TOKEN`."""
    before, after = _by_token(then), _by_token(now)
    said = [
        _count([token for token in before if token not in after], len(before), "is missing", "are missing"),
        _count([token for token in after if token not in before], len(after), "is new", "are new"),
    ]
    for place, name in enumerate(PARTS):
        changed = [
            token for token in before if token in after and before[token][place] != after[token][place]
        ]
        said.append(_count(changed, len(before), "has " + WORDS[name], "have " + WORDS[name]))
    return "; ".join(filter(None, said)) or "the same frames in another order"


def _count(tokens: Sequence[str], of: int, one: str, more: str) -> str:
    if not tokens:
        return ""
    return "%d of %d %s, such as %s" % (len(tokens), of, one if len(tokens) == 1 else more, tokens[0])


def _by_token(lines: Sequence[str]) -> Dict[str, List[str]]:
    return {words[0]: words[1:] for words in (line.split(" ") for line in lines)}
