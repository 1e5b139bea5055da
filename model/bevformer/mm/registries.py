"""mmcv's registries: a sentence for a name that is not there, and for one that is there twice."""

import difflib
import inspect
import sys
from typing import Any, Iterable, List

from mmcv.utils import Registry, build_from_cfg

from ..errors import ConfigError

PACKAGES = ("mmcv", "mmdet", "mmseg", "mmdet3d")
OURS = __name__.rpartition(".")[0] + "."
# What upstream's files name and the bundled head has inside: nobody builds them one by one.
PARTS = (
    "PerceptionTransformer BEVFormerEncoder BEVFormerLayer TemporalSelfAttention SpatialCrossAttention"
    " MSDeformableAttention3D DetectionTransformerDecoder CustomMSDeformableAttention"
).split()
# What upstream's files of the second version name and the first has not: no slip of somebody's pen.
SECOND = (
    "BEVFormerV2 BEVFormerHead_GroupDETR PerceptionTransformerV2 PerceptionTransformerBEVEncoder"
    " GroupMultiheadAttention CustomNuScenesDatasetV2 NuscenesDD3D DD3DMapper CropResizeFlipImage"
    " GlobalRotScaleTransImage SmoothL1Cost"
).split()
# Builders that do not go through build_from_cfg: they ask whether the name is there and raise a KeyError of
# their own where it is not.  (module, registry, function)
ASKING = (
    ("mmcv.cnn.bricks.conv", "CONV_LAYERS", "build_conv_layer"),
    ("mmcv.cnn.bricks.norm", "NORM_LAYERS", "build_norm_layer"),
    ("mmcv.cnn.bricks.padding", "PADDING_LAYERS", "build_padding_layer"),
    ("mmcv.cnn.bricks.plugin", "PLUGIN_LAYERS", "build_plugin_layer"),
    ("mmcv.cnn.bricks.upsample", "UPSAMPLE_LAYERS", "build_upsample_layer"),
    ("mmdet.models.utils.builder", "LINEAR_LAYERS", "build_linear_layer"),
    ("mmdet3d.ops.pointnet_modules.builder", "SA_MODULES", "build_sa_module"),
    ("mmdet.core.optimizers.builder", "MMCV_OPTIMIZER_BUILDERS", "build_optimizer_constructor"),
    ("mmseg.core.builder", "MMCV_OPTIMIZER_BUILDERS", "build_optimizer_constructor"),
)


class BadName(ConfigError, KeyError):
    """A KeyError too, for whoever catches mmcv's."""


def _code(function: Any) -> Any:
    return getattr(inspect.unwrap(function), "__code__", None) if function else None


_BUILD_FROM_CFG = _code(build_from_cfg)


class Explaining(Registry):  # type: ignore[misc]
    """A registry whose errors are sentences; all else is mmcv's.

    Most builders call mmcv's build_from_cfg, which they hold by name: it cannot be replaced for them.  So who
    asks decides: None for a question, and a sentence where a builder would raise its KeyError next.
    """

    def get(self, key: str) -> Any:
        found = self._found(key)
        if found is None and sys._getframe(1).f_code is _BUILD_FROM_CFG:
            raise self._unknown(key)
        return found

    def __contains__(self, key: str) -> bool:
        there = self._found(key) is not None
        if not there and sys._getframe(1).f_code in self._asking():
            raise self._unknown(key)
        return there

    def _found(self, key: str) -> Any:
        """mmcv's own asks a parent for `scope.Name` even where there is none."""
        scope = self.split_scope_key(key)[0]
        if scope in (None, self.scope) or scope in self.children or self.parent is not None:
            return super().get(key)
        return None

    def _asking(self) -> List[Any]:
        loaded = [(sys.modules.get(module), name, function) for module, name, function in ASKING]
        return [_code(getattr(at, function, None)) for at, name, function in loaded if _is(at, name, self)]

    def _unknown(self, key: str) -> BadName:
        return unknown(key, self.name, names_in(each for each in every() if each.name == self.name))

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


def _is(module: Any, name: str, registry: Registry) -> bool:
    return getattr(module, name, None) is registry


def unknown(key: str, where: str, known: Iterable[str], what: str = "type") -> BadName:
    if key in PARTS:
        return BadName(
            "%s: %s is not built alone" % (where, key),
            "It is a part of the bundled BEVFormerHead, which reads its whole section.",
            "Build BEVFormer or BEVFormerHead; a head of your own needs upstream's plugin.",
        )
    if key in SECOND:
        return BadName(
            "%s: %s belongs to BEVFormer v2" % (where, key),
            "The bundled model is the first version; another name would be another network.",
            "Run this file with upstream's own plugin and plugin_dir, without bevformer.mm.register.",
        )
    near = difflib.get_close_matches(key, sorted(set(known)), 3, 0.6)
    return BadName(
        "%s: there is no %s %r" % (where, what, key),
        "Close to it: %s." % ", ".join(near) if near else "Nothing that is registered is called like it.",
        "Correct the name, or import the module that registers it (custom_imports).",
    )


def twice(name: str, there: Any, here: Any) -> BadName:
    seen = "%s is registered twice: by %s and by %s" % (name, there.__module__, here.__module__)
    why = "Which of the two a configuration means would depend on the order of imports."
    if not any(each.__module__.startswith(OURS) for each in (there, here)):
        return BadName(
            seen, why, "Give one of them another name; register_module(force=True) takes the later one."
        )
    return BadName(
        seen,
        why,
        "Keep one: leave out plugin/plugin_dir of upstream, or do not import bevformer.mm.register; "
        "bevformer.mm.register.register(force=True) takes the bundled ones.",
    )


def every() -> List[Registry]:
    """All registries of OpenMMLab's packages, as far as these are imported; each once."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if module is not None and name.split(".")[0] in PACKAGES:
            for value in list(vars(module).values()):
                if isinstance(value, Registry):
                    found[id(value)] = value
    return list(found.values())


def named(name: str) -> List[Registry]:
    """Those that mmdet3d's builders look into, by what mmcv calls them ("pipeline"); mmseg has its own."""
    return [each for each in every() if each.name == name and each.scope != "mmseg"]


def explain() -> None:
    """From now on the errors of all of them are sentences."""
    for registry in every():
        if type(registry) is Registry:
            registry.__class__ = Explaining


def names_in(found: Iterable[Registry]) -> List[str]:
    out: List[str] = []
    for registry in found:
        out += registry.module_dict
    return out
