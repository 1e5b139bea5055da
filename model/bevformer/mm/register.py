"""Registers the bundled parts under upstream's names.  In a configuration:

    custom_imports = dict(imports=["bevformer.mm.register"])

instead of upstream's plugin and plugin_dir; `mmdet3d.models.build_model(cfg.model)` then gives the bundled
model.  Errors of OpenMMLab's registries become sentences (`registries`).
"""

from typing import List, Tuple

from mmcv.runner import HOOKS, RUNNERS, CheckpointLoader
from mmcv.utils import Registry
from mmdet.core.bbox.builder import BBOX_ASSIGNERS, BBOX_CODERS
from mmdet.core.bbox.match_costs.builder import MATCH_COST
from mmdet.datasets.builder import DATASETS, PIPELINES
from mmdet.models.builder import DETECTORS, HEADS

from .assign import BBox3DL1Cost, HungarianAssigner3D, NMSFreeCoder
from .dataset import CustomNuScenesDataset
from .detector import BEVFormer
from .head import BEVFormerHead
from .pipelines import STEPS
from .reader import load_from_file
from .registries import BadName, explain
from .runner import EpochBasedRunner_video, TransferWeight

# Where upstream's plugin registers them: mmdet3d's builders look there too.
PARTS: List[Tuple[Registry, str, type]] = [
    (DETECTORS, "BEVFormer", BEVFormer),
    (DETECTORS, "BEVFormer_fp16", BEVFormer),  # the same model; mixed precision is the runner's
    (HEADS, "BEVFormerHead", BEVFormerHead),
    (DATASETS, "CustomNuScenesDataset", CustomNuScenesDataset),
    *[(PIPELINES, step.__name__, step) for step in STEPS],
    (BBOX_ASSIGNERS, "HungarianAssigner3D", HungarianAssigner3D),
    (BBOX_CODERS, "NMSFreeCoder", NMSFreeCoder),
    (MATCH_COST, "BBox3DL1Cost", BBox3DL1Cost),
    (RUNNERS, "EpochBasedRunner_video", EpochBasedRunner_video),
    (HOOKS, "TransferWeight", TransferWeight),
]


def register(force: bool = False) -> None:
    """Safe to call again.  force: also in place of what somebody else has registered.

    Raises ConfigError naming what is registered already, and by whom; nothing is changed then.
    """
    others = [
        (name, registry.module_dict[name])
        for registry, name, part in PARTS
        if registry.module_dict.get(name, part) is not part
    ]
    if others and not force:
        raise BadName(
            "already registered: %s" % ", ".join("%s by %s" % (name, by.__module__) for name, by in others),
            "Which of two a configuration means would depend on the order of imports.",
            "Keep one: leave out plugin/plugin_dir of upstream, or do not import bevformer.mm.register. "
            "register(force=True) takes the bundled ones.",
        )
    explain()
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_file, force=True)
    for registry, name, part in PARTS:
        registry.register_module(name=name, force=True, module=part)


register()
