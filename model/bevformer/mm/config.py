"""Our configuration of the section `model` that mmcv's registry hands over, and where its weights start."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple

from ..config import Config, override, preset
from ..errors import ConfigError
from ..upstream_config import map_sections
from ..upstream_reader import Located

WHERE = "the configuration"  # mmcv's Config does not keep in which line a value was


@dataclass(frozen=True)
class Start:
    """What `init_weights` loads, a path or an address that mmcv knows; None: nothing."""

    whole: Optional[str] = None
    backbone: Optional[str] = None


def located(value: Any) -> Any:
    """Nested dicts of any kind as the reader of upstream's files makes them."""
    if isinstance(value, Mapping):
        out = Located()
        for key, inner in value.items():
            out.put(key, located(inner), WHERE)
        return out
    if isinstance(value, (list, tuple)):
        return type(value)(located(inner) for inner in value)
    return value


def read_model(
    model: Mapping[str, Any], name: Optional[str] = None, options: Sequence[str] = ()
) -> Tuple[Config, Start]:
    """model: as upstream's files have it; or `name` of a preset and an empty one.

    options: `key.sub=value` of our configuration, applied last.  Raises ConfigError for what cannot be
    honoured, naming its place in the configuration.
    """
    sections = {key: value for key, value in model.items() if value is not None}
    start = _start(sections)
    sections.pop("pretrained", None)
    if name and set(sections) - {"type", "train_cfg", "test_cfg"}:
        raise ConfigError(
            "model has preset = %r and also %s" % (name, ", ".join(sorted(set(sections) - {"type"}))),
            "A preset says all of the model.",
            "Leave one of them out; single values go into options=['head.num_query=300'].",
        )
    if name:
        return override(preset(name), options), start
    tree = Located()
    tree.put("model", located(sections), WHERE)
    config = dataclasses.replace(map_sections(tree), name="upstream")
    return override(config, options), start


def _start(sections: Any) -> Start:
    """Takes init_cfg out of the sections, where mmcv has two places for it, and reads `pretrained`."""
    backbone = sections.get("img_backbone")
    pretrained = sections.get("pretrained")
    if isinstance(pretrained, Mapping):
        pretrained = pretrained.get("img")
    if isinstance(backbone, Mapping) and "init_cfg" in backbone:
        sections["img_backbone"] = {key: value for key, value in backbone.items() if key != "init_cfg"}
        pretrained = _pretrained(backbone["init_cfg"], "model.img_backbone.init_cfg") or pretrained
    return Start(_pretrained(sections.pop("init_cfg", None), "model.init_cfg"), pretrained)


def _pretrained(init_cfg: Any, where: str) -> Optional[str]:
    if init_cfg is None:
        return None
    kind = init_cfg.get("type") if isinstance(init_cfg, Mapping) else init_cfg
    if kind != "Pretrained" or not isinstance(init_cfg.get("checkpoint"), str):
        raise ConfigError(
            "%s: %s.type = %r cannot be honoured" % (WHERE, where, kind),
            "Weights that are not loaded are drawn as upstream's are; only 'Pretrained' with a checkpoint "
            "is something else.",
            "Remove it, or write dict(type='Pretrained', checkpoint=...).",
        )
    if init_cfg.get("prefix"):
        raise ConfigError(
            "%s: %s.prefix = %r cannot be honoured" % (WHERE, where, init_cfg["prefix"]),
            "Prefixes are found by the bundled loader.",
            "Remove it.",
        )
    return str(init_cfg["checkpoint"])
