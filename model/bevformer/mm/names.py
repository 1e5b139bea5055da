"""Every name in a configuration, looked up before anything is built."""

import importlib
from typing import Any, Iterator, Mapping, Sequence, Tuple

from mmcv.utils import Registry

from ..errors import ConfigError
from .registries import PARTS, every, named, names_in, unknown

# Sections of the training, what mmcv calls the registry of their `type`, and of their `constructor`.
TRAINING = (
    ("optimizer", "optimizer", "optimizer builder"),
    ("runner", "runner", "runner builder"),
    ("optimizer_config", "hook", None),
    ("checkpoint_config", "hook", None),
    ("evaluation", "hook", None),
    ("log_config", None, None),
)
POLICIES = (("lr_config", "LrUpdaterHook"), ("momentum_config", "MomentumUpdaterHook"))
UNREGISTERED = ("EvalHook", "DistEvalHook", "CBGSDataset")  # builders know them without a registry
FUNCTIONS = ("mmcv.ops", "mmdet3d.ops")  # `type` may name one of their attributes: nms, RoIAlign
FOREIGN = ("Albu",)  # a step whose section has the names of another package


def check(config: Mapping[str, Any]) -> None:
    """model, data.train/val/test with their pipelines, and the sections of the training with their hooks.

    Raises ConfigError naming the type, its place in the configuration and what is called like it.
    """
    for section, types, constructors in TRAINING:
        part = config.get(section)
        if isinstance(part, Mapping):
            if types:
                _require(part.get("type"), section + ".type", named(types))
            if constructors:
                _require(part.get("constructor"), section + ".constructor", named(constructors))
            check_pipeline(part.get("pipeline") or (), section + ".pipeline")
    for section, suffix in POLICIES:
        _check_policy(config.get(section), section, suffix)
    _check_steps(config.get("custom_hooks") or (), "custom_hooks", "hook")
    _check_steps((config.get("log_config") or {}).get("hooks") or (), "log_config.hooks", "hook")
    _check_model(config.get("model") or {})
    for split in ("train", "val", "test"):
        _check_data((config.get("data") or {}).get(split) or {}, "data." + split)


def check_pipeline(steps: Sequence[Any], where: str = "pipeline") -> None:
    """Raises ConfigError naming the first step that nobody has registered, and its place."""
    _check_steps(steps, where, "pipeline")


def _check_steps(steps: Sequence[Any], where: str, registry: str) -> None:
    for number, step in enumerate(steps):
        place = "%s.%d" % (where, number)
        if not isinstance(step, Mapping):
            continue  # built already
        _check_type(step, place, registry)
        if step["type"] in FOREIGN:
            continue
        inner = {key: value for key, value in step.items() if key not in ("type", "transforms")}
        _check_nested(inner, place)
        _check_steps(step.get("transforms") or (), place + ".transforms", registry)


def _check_type(part: Mapping[str, Any], where: str, registry: str) -> None:
    if part.get("type") is None:
        raise ConfigError(
            "%s has no type" % where,
            "It says %s." % (", ".join(sorted(map(str, part))) or "nothing"),
            "Write which one it is: type=...",
        )
    _require(part["type"], where + ".type", named(registry))


def _require(key: Any, where: str, found: Sequence[Registry]) -> None:
    if (
        isinstance(key, str)
        and key not in UNREGISTERED
        and not any(each.get(key) is not None for each in found)
    ):
        raise unknown(key, where, names_in(found))


def _check_policy(section: Any, where: str, suffix: str) -> None:
    """A policy is the beginning of a hook's name; one in small letters is capitalised, as mmcv does."""
    if not isinstance(section, Mapping) or not section:
        return
    policy = section.get("policy")
    known = [name[: -len(suffix)] for name in names_in(named("hook")) if name.endswith(suffix)]
    if not isinstance(policy, str):
        raise ConfigError("%s has no policy" % where, do="It is one of: %s." % ", ".join(sorted(known)))
    if (policy.title() if policy == policy.lower() else policy) not in known:
        raise unknown(policy, where + ".policy", known, "policy")


def _check_model(model: Mapping[str, Any]) -> None:
    """Ours is read as its constructor reads it; of others, derived ones too, names are looked up.

    So it is with a head that derives from ours: what its own arguments are, only its constructor knows.
    """
    from .config import read_model
    from .detector import BEVFormer
    from .own_head import is_own

    if not model:
        return
    _check_type(model, "model", "models")
    ours = model["type"] is BEVFormer or any(each.get(model["type"]) is BEVFormer for each in named("models"))
    if ours and not is_own(model.get("pts_bbox_head")):
        options = {key: value for key, value in model.items() if key not in ("preset", "options")}
        read_model(options, model.get("preset"), model.get("options") or ())
    else:
        _check_nested({key: value for key, value in model.items() if key != "type"}, "model")


def _check_data(part: Any, where: str) -> None:
    if isinstance(part, (list, tuple)):
        for number, inner in enumerate(part):
            _check_data(inner, "%s.%d" % (where, number))
        return
    if not isinstance(part, Mapping) or not part:
        return
    _check_type(part, where, "dataset")
    check_pipeline(part.get("pipeline") or (), where + ".pipeline")
    for key in ("dataset", "datasets"):
        _check_data(part.get(key), "%s.%s" % (where, key))


def _check_nested(value: Any, where: str) -> None:
    """Which registry a nested type is looked up in is its builder's business: one of them has to know it."""
    found, modules = every(), [importlib.import_module(each) for each in FUNCTIONS]
    for place, key in _types(value, where):
        if key not in PARTS and not any(hasattr(each, key) for each in modules):
            _require(key, place, found)


def _types(value: Any, where: str) -> Iterator[Tuple[str, str]]:
    """(place, type) of every dict inside."""
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str):
            yield where + ".type", value["type"]
        for key, inner in value.items():
            yield from _types(inner, "%s.%s" % (where, key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _types(inner, "%s.%d" % (where, number))
