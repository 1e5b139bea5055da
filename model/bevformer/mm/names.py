"""Names in mmcv's registries: sentences for one that is not there, and for one that is there twice."""

import difflib
import importlib
import sys
from typing import Any, Iterable, Iterator, List, Mapping, Sequence, Tuple

from mmcv.utils import Registry

from ..errors import ConfigError

# What upstream's files name and the bundled head has inside: nobody builds them one by one.
PARTS = (
    "PerceptionTransformer BEVFormerEncoder BEVFormerLayer TemporalSelfAttention SpatialCrossAttention"
    " MSDeformableAttention3D DetectionTransformerDecoder CustomMSDeformableAttention"
).split()
# Where registries live: (module, attribute); what is not there in a version is left out.
PLACES = (
    ("mmdet3d.models.builder", "DETECTORS"),
    ("mmdet.models.builder", "DETECTORS"),
    ("mmdet3d.datasets.builder", "DATASETS"),
    ("mmdet.datasets.builder", "DATASETS"),
    ("mmdet3d.datasets.builder", "PIPELINES"),
    ("mmdet.datasets.builder", "PIPELINES"),
    ("mmdet.core.bbox.builder", "BBOX_ASSIGNERS"),
    ("mmdet.core.bbox.builder", "BBOX_CODERS"),
    ("mmdet.core.bbox.match_costs.builder", "MATCH_COST"),
    ("mmdet.models.utils.builder", "TRANSFORMER"),
    ("mmcv.cnn.bricks.registry", "ATTENTION"),
    ("mmcv.cnn.bricks.registry", "TRANSFORMER_LAYER"),
    ("mmcv.cnn.bricks.registry", "TRANSFORMER_LAYER_SEQUENCE"),
    ("mmcv.runner", "RUNNERS"),
    ("mmcv.runner", "HOOKS"),
    ("mmcv.runner.optimizer", "OPTIMIZERS"),
)


class BadName(ConfigError, KeyError):
    """A KeyError too, for whoever catches mmcv's."""


class Explaining(Registry):  # type: ignore[misc]
    """A registry whose errors are sentences; all else is mmcv's."""

    def get(self, key: str) -> Any:
        """None for others that ask; where mmcv is about to build it, a sentence instead of its KeyError."""
        found = super().get(key)
        if found is None and sys._getframe(1).f_code.co_name == "build_from_cfg":
            raise unknown(key, self.name, names_in([self]))
        return found

    def _register_module(self, *args: Any, **kwargs: Any) -> None:
        """mmcv before 1.6 calls its first argument module_class."""
        given = dict(zip(("module", "module_name", "force"), args), **kwargs)
        module = given.get("module", given.get("module_class"))
        names = given.get("module_name") or module.__name__
        for name in [names] if isinstance(names, str) else names:
            there = self.module_dict.get(name)
            if there is not None and not given.get("force"):
                raise twice(name, there, module)
        super()._register_module(*args, **kwargs)


def unknown(key: str, where: str, known: Iterable[str]) -> BadName:
    if key in PARTS:
        return BadName(
            "%s: %s is not built alone" % (where, key),
            "It is a part of the bundled BEVFormerHead, which reads its whole section.",
            "Build BEVFormer or BEVFormerHead; a head of your own needs upstream's plugin.",
        )
    near = difflib.get_close_matches(key, list(known), 3, 0.6)
    return BadName(
        "%s: there is no type %r" % (where, key),
        "Close to it: %s." % ", ".join(near) if near else "Nothing that is registered is called like it.",
        "Correct the name, or import the module that registers it (custom_imports).",
    )


def twice(name: str, there: Any, here: Any) -> BadName:
    return BadName(
        "%s is registered twice: by %s and by %s" % (name, there.__module__, here.__module__),
        "Which of the two a configuration means would depend on the order of imports.",
        "Keep one: leave out plugin/plugin_dir of upstream, or do not import bevformer.mm.register; "
        "bevformer.mm.register.register(force=True) takes the bundled ones.",
    )


def registries(*names: str) -> List[Registry]:
    """Those that upstream's configurations are built with, or the named ones of them; each once."""
    found: List[Registry] = []
    for module, name in PLACES:
        try:
            registry = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue  # of another version
        if name in (names or [name]) and not any(registry is each for each in found):
            found.append(registry)
    return found


def explain(found: Sequence[Registry]) -> None:
    """From now on their errors are sentences."""
    for registry in found:
        if type(registry) is Registry:
            registry.__class__ = Explaining


def names_in(found: Iterable[Registry]) -> List[str]:
    out: List[str] = []
    for registry in found:
        out += registry.module_dict
        if registry.parent is not None:
            out += registry.parent.module_dict
    return out


def _require(key: Any, where: str, found: Sequence[Registry]) -> None:
    if isinstance(key, str) and not any(each.get(key) is not None for each in found):
        raise unknown(key, where, names_in(found))


def check_pipeline(steps: Sequence[Any], where: str = "pipeline") -> None:
    """Raises ConfigError naming the first step that nobody has registered, and its place."""
    found = registries("PIPELINES")
    for number, step in enumerate(steps):
        if isinstance(step, Mapping):
            place = "%s.%d" % (where, number)
            _require(step.get("type"), place + ".type", found)
            check_pipeline(step.get("transforms") or (), place + ".transforms")


def _types(value: Any, where: str) -> Iterator[Tuple[str, Any]]:
    """(place, type) of a section and of the dicts directly inside it or in its lists."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield where + ".type", value["type"]
        for key in ("hooks", "dataset", "datasets"):
            yield from _types(value.get(key), "%s.%s" % (where, key))
    if isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _types(inner, "%s.%d" % (where, number))


def check(config: Mapping[str, Any]) -> None:
    """Every name in a whole configuration, before anything is built.

    Raises ConfigError naming the type, its place in the configuration and what is called like it.
    """
    from .config import read_model
    from .detector import BEVFormer

    kinds = {
        "model": "DETECTORS",
        "optimizer": "OPTIMIZERS",
        "runner": "RUNNERS",
        "custom_hooks": "HOOKS",
        "log_config": "HOOKS",
    }
    for section, name in kinds.items():
        found = registries(name)
        for where, key in _types(config.get(section), section):
            _require(key, where, found)
    model = config.get("model") or {}
    if issubclass(_class_of(model.get("type")), BEVFormer):
        options = {key: value for key, value in model.items() if key not in ("preset", "options")}
        read_model(options, model.get("preset"), model.get("options") or ())
    for split in ("train", "val", "test"):
        part = (config.get("data") or {}).get(split) or {}
        found = registries("DATASETS")
        for where, key in _types(part, "data." + split):
            _require(key, where, found)
        if isinstance(part, Mapping):
            check_pipeline(part.get("pipeline") or (), "data.%s.pipeline" % split)


def _class_of(key: Any) -> type:
    detectors = registries("DETECTORS")
    found = [each.get(key) for each in detectors] if key else []
    return next((each for each in found if isinstance(each, type)), object)
