"""The models that `bench step` and `bench infer` let compete: the same weights, computed in other ways.

plain   fp32 in the style of the reference: grid_sample as upstream writes it, batch norms that keep their
        inputs, images as floats, a launch per parameter in AdamW
fp32    ours as it is without any option: the same numbers, up to rounding
fast    with bf16, and frozen norms folded in training too
lean    fast with the whole memory ladder (training alone)
"""

import argparse
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn

from .amp import Precision
from .bench_common import reason, recover
from .bench_pair import with_spread_sampling
from .bench_plain import plain_twin
from .config import Config, override
from .detector import BEVFormer, build_model
from .errors import ConfigError
from .nominal import ImageSize, image_size
from .rungs import apply_rungs, rungs_for

PLAIN = "plain"
OPTIONS: Dict[str, Tuple[str, ...]] = {
    PLAIN: (
        "ops.attention=reference",
        "ops.pixels=worker",
        "ops.channels_last=off",
        "ops.folded_norms=off",
        "ops.cameras_at_once=6",
        "ops.adamw=loop",
    ),
    "fp32": (),
    "fast": (),
    "lean": (),
}
TRAINING: Dict[str, Tuple[str, ...]] = {"fast": ("ops.folded_norms=on",), "lean": ("ops.folded_norms=on",)}
BF16 = ("fast", "lean")


@dataclass(frozen=True)
class Contender:
    """levers: what was switched on, in words."""

    who: str
    model: BEVFormer
    precision: Precision
    levers: Tuple[str, ...]


def make(config: Config, who: str, device: torch.device, training: bool) -> Contender:
    """With the weights that all of them have.  Raises ConfigError where it cannot run here."""
    if who not in OPTIONS:
        raise ConfigError("unknown contender: %s" % who, do="One of: " + ", ".join(OPTIONS))
    bf16 = who in BF16 and bf16_pays(device)
    if who in BF16 and not bf16 and not training:
        raise ConfigError("this device has no fast bf16, so %s would be fp32" % who)
    options = (*OPTIONS[who], *(TRAINING.get(who, ()) if training else ()))
    torch.manual_seed(0)
    model = with_spread_sampling(build_model(override(config, options)))
    if who == PLAIN:
        plain_twin(model.pts_bbox_head.transformer.encoder)
    model = model.train(training).to(device)
    levers = [] if who == PLAIN else ["attention: " + attention_of(model, device)]
    if who == "lean":
        names = [each.name for each in rungs_for(model)]
        apply_rungs(model, names)
        levers += names
    levers += [option[len("ops.") :] for option in options if who != PLAIN] + (["bf16"] if bf16 else [])
    return Contender(who, model, Precision("bf16" if bf16 else "fp32"), tuple(levers))


def attention_of(model: nn.Module, device: torch.device) -> str:
    """Which backend the attentions of the encoder run through."""
    spatial: Any = model.pts_bbox_head.transformer.encoder.layers[0].attentions[1]  # type: ignore[union-attr,index]
    return str(spatial.operators(device).name)


def bf16_pays(device: torch.device) -> bool:
    """A GPU that has it; a CPU whose instructions have it, elsewhere it is emulated and slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            return bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", stream.read()))
    except OSError:
        return False


def sizes_of(config: Config, text: Optional[str]) -> ImageSize:
    """480x800 as the padded size; None for the configuration's.  Raises ConfigError."""
    if text is None:
        return image_size(config)
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    divisor = config.data.pad_divisor
    if not found or any(int(side) < 1 or int(side) % divisor for side in found.groups()):
        raise ConfigError(
            "--size %s" % text, do="Height x width in multiples of %d, for example 480x800." % divisor
        )
    return image_size(config, (int(found.group(1)), int(found.group(2))))


def add_model_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    parser.add_argument("--who", nargs="+", default=list(names), metavar="NAME", help=", ".join(names))
    parser.add_argument("--size", metavar="HxW", help="of the padded images (default: the configuration's)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for all of them")


def made_one_by_one(
    config: Config,
    names: Sequence[str],
    device: torch.device,
    training: bool,
    absent: Dict[str, str],
    case: str,
) -> Iterator[Contender]:
    """Those that can run here; why the others cannot is entered in `absent`.  Unknown names are refused."""
    unknown = [name for name in names if name not in OPTIONS]
    if unknown:
        raise ConfigError("unknown contender: %s" % unknown[0], do="One of: " + ", ".join(OPTIONS))
    for name in names:
        made: List[Contender] = []
        try:
            made.append(make(config, name, device, training))
        except ConfigError as error:
            absent["%s, %s" % (case, name)] = error.seen
        except Exception as error:  # what does not fit or breaks is named, and the others go on
            absent["%s, %s" % (case, name)] = reason(error)
        if made:
            yield made.pop()  # whoever takes it decides how long it lives
        else:
            recover(name, absent["%s, %s" % (case, name)])


def model_bytes(model: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()])


def told(rows: Sequence[Dict[str, Any]]) -> List[str]:
    lines = []
    for each in rows:
        peak = ", peak %.2f GB" % each["peak_gb"] if each.get("peak_gb") is not None else ""
        lines.append("%s, %s: %.4g s%s" % (each["case"], each["who"], each["median"], peak))
    return lines
