"""Our configuration of the section `model` that mmcv's registry hands over, and where its weights start."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple

from ..config import Config, override, preset
from ..errors import ConfigError
from ..upstream_config import BUILT_IN, MAPPED, REPEATED, map_sections
from ..upstream_reader import Located

WHERE = "the configuration"  # mmcv's Config does not keep in which line a value was
INSTEAD = (
    "Change it, or name a preset in place of the sections: model = dict(type='BEVFormer', "
    "preset='bevformer_tiny', options=['head.num_query=300'])."
)
STEERING = (*MAPPED, *BUILT_IN, *REPEATED, "model.img_backbone.stage_with_dcn")
UNSET = ("model.train_cfg", "model.train_cfg.pts")  # None for a model that is only tested


@dataclass(frozen=True)
class Start:
    """What `init_weights` loads, a path or an address that mmcv knows; None: nothing."""

    whole: Optional[str] = None
    backbone: Optional[str] = None


def located(value: Any, path: str) -> Any:
    """Nested dicts of any kind as the reader of upstream's files makes them.

    mmdet3d's tools set what they do not need to None: left out where it is no option of ours.
    """
    if isinstance(value, Mapping):
        out = Located()
        for key, inner in value.items():
            place = "%s.%s" % (path, key)
            if inner is not None or _steers(place):
                out.put(key, located(inner, place), WHERE)
        return out
    if isinstance(value, (list, tuple)):
        return type(value)(located(inner, "%s.%d" % (path, place)) for place, inner in enumerate(value))
    return value


def _steers(place: str) -> bool:
    return place not in UNSET and any((known + ".").startswith(place + ".") for known in STEERING)


def read_model(
    model: Mapping[str, Any], name: Optional[str] = None, options: Sequence[str] = ()
) -> Tuple[Config, Start]:
    """model: as upstream's files have it; or `name` of a preset and an empty one.

    options: `key.sub=value` of our configuration, applied last.  Raises ConfigError for what cannot be
    honoured, naming its place in the configuration.
    """
    sections = dict(model)
    start = _start(sections)
    sections.pop("pretrained", None)
    given = {key for key, value in sections.items() if value is not None} - {"type"}
    if name and given - {"train_cfg", "test_cfg"}:
        raise ConfigError(
            "model has preset = %r and also %s" % (name, ", ".join(sorted(given))),
            "A preset says all of the model.",
            "Leave one of them out; single values go into options=['head.num_query=300'].",
        )
    if name:
        return override(preset(name), options), start
    _refuse_other_heads(sections.get("pts_bbox_head"))
    tree = Located()
    tree.put("model", located(sections, "model"), WHERE)
    try:
        config = dataclasses.replace(map_sections(tree), name="upstream")
    except ConfigError as error:  # its advice is for the command line of bevrepro
        raise ConfigError(error.seen, error.why, INSTEAD) from None
    return override(config, options), start


def _refuse_other_heads(head: Any) -> None:
    """Nothing may say that a head ran which did not; those that derive from the bundled one: `own_head`."""
    kind = head.get("type", "BEVFormerHead") if isinstance(head, Mapping) else "BEVFormerHead"
    if kind != "BEVFormerHead":
        raise ConfigError(
            "%s: model.pts_bbox_head.type = %r cannot be honoured" % (WHERE, kind),
            "The bundled detector runs the bundled head, and heads whose class derives from it.",
            "Derive yours from bevformer.mm.head.BEVFormerHead, or build it in a detector of your own: "
            "mmdet3d.models.build_head(...).",
        )


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
    if isinstance(init_cfg, (list, tuple)) and len(init_cfg) == 1:
        init_cfg = init_cfg[0]
    if not init_cfg:
        return None
    known = isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained"
    if not known or not isinstance(init_cfg.get("checkpoint"), str):
        raise ConfigError(
            "%s: %s = %r cannot be honoured" % (WHERE, where, _shown(init_cfg)),
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


def _shown(init_cfg: Any) -> Any:
    """As it was written, whatever class of dict mmcv has made of it."""
    if isinstance(init_cfg, Mapping):
        return {key: _shown(value) for key, value in init_cfg.items()}
    return [_shown(each) for each in init_cfg] if isinstance(init_cfg, (list, tuple)) else init_cfg
