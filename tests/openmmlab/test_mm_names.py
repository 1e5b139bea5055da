"""Names in registries: those of upstream are there, and what is wrong with one is a sentence."""

import mmdet3d.datasets
import mmdet3d.models
import pytest
from mmcv.runner import HOOKS, RUNNERS
from mmcv.utils import ConfigDict
from mmdet.core.bbox.builder import BBOX_ASSIGNERS, BBOX_CODERS
from mmdet.core.bbox.match_costs.builder import MATCH_COST
from mmdet.datasets.builder import DATASETS, PIPELINES
from mmdet.models.builder import DETECTORS, HEADS
from mmdet3d.datasets.utils import get_loading_pipeline

import mm_case
from bevformer.errors import ConfigError, DataError
from bevformer.mm import register
from bevformer.mm.detector import BEVFormer
from bevformer.mm.names import check


@pytest.fixture
def tree(tmp_path, synth):
    return mm_case.parsed(tmp_path, synth)


@pytest.mark.parametrize(
    "registry, names",
    [
        (DETECTORS, "BEVFormer BEVFormer_fp16"),
        (HEADS, "BEVFormerHead"),
        (DATASETS, "CustomNuScenesDataset"),
        (
            PIPELINES,
            "PhotoMetricDistortionMultiViewImage NormalizeMultiviewImage RandomScaleImageMultiViewImage"
            " PadMultiViewImage CustomCollect3D",
        ),
        (BBOX_ASSIGNERS, "HungarianAssigner3D"),
        (BBOX_CODERS, "NMSFreeCoder"),
        (MATCH_COST, "BBox3DL1Cost"),
        (RUNNERS, "EpochBasedRunner_video"),
        (HOOKS, "TransferWeight"),
    ],
)
def test_upstreams_names_are_registered(registry, names):
    for name in names.split():
        assert name in registry and registry.get(name).__module__.startswith("bevformer.mm.")


def test_a_name_that_nobody_knows_is_a_sentence_with_what_is_close():
    for build, key, near in (
        (mmdet3d.models.build_model, "BEVFormr", "BEVFormer"),
        (mmdet3d.datasets.build_dataset, "CustomNuScenseDataset", "CustomNuScenesDataset"),
    ):
        with pytest.raises(ConfigError, match="there is no type '%s'(.|\n)*Close to it: %s" % (key, near)):
            build(ConfigDict(type=key))


@pytest.mark.parametrize(
    "build, key",
    [
        (mmdet3d.models.build_model, "BEVFormerV2"),
        (mmdet3d.datasets.build_dataset, "CustomNuScenesDatasetV2"),
        (mmdet3d.models.build_head, "BEVFormerHead_GroupDETR"),
    ],
)
def test_the_second_version_is_told_as_one_and_not_as_a_slip(build, key):
    with pytest.raises(ConfigError, match="%s belongs to BEVFormer v2(.|\n)*own plugin" % key):
        build(ConfigDict(type=key))


def test_who_only_asks_gets_none():
    assert PIPELINES.get("Nothing") is None and "Nothing" not in PIPELINES
    assert get_loading_pipeline([dict(type="CustomCollect3D"), dict(type="LoadAnnotations3D")])


def test_a_part_of_the_head_is_named_as_one():
    with pytest.raises(ConfigError, match="PerceptionTransformer is not built alone"):
        mmdet3d.models.build_head(ConfigDict(type="PerceptionTransformer"))


@pytest.mark.parametrize(
    "place, value, said",
    [
        ("model.type", "BEVFormr", "model.type: there is no type 'BEVFormr'"),
        ("model.img_neck.type", "FPM", "model.img_neck.type = 'FPM' cannot be honoured"),
        ("data.train.type", "Nuscenes", "data.train.type: there is no type"),
        ("optimizer.type", "AdamWW", "optimizer.type: there is no type 'AdamWW'"),
        ("runner.type", "EpochRunner", "runner.type: there is no type"),
        ("data.train.pipeline.6.type", "RandomScaleImage", "data.train.pipeline.6.type: there is no"),
        ("data.test.pipeline.2.transforms.1.type", "Pad3", "data.test.pipeline.2.transforms.1.type: there"),
        ("data.train.pipeline.1.type", None, "data.train.pipeline.1 has no type"),
        ("data.train.type", None, "data.train has no type"),
        ("model.type", None, "model has no type"),
        (
            "lr_config.policy",
            "CosineAnealing",
            "lr_config.policy: there is no policy 'CosineAnealing'\nClose to it: CosineAnnealing",
        ),
        ("lr_config.policy", None, "lr_config has no policy\nIt is one of: .*CosineAnnealing"),
        ("optimizer.constructor", "Nope", "optimizer.constructor: there is no type 'Nope'"),
        ("runner.constructor", "Nope", "runner.constructor: there is no type 'Nope'"),
        ("optimizer_config.type", "OptimizerHok", "optimizer_config.type: .*\nClose to it: .*OptimizerHook"),
        ("evaluation.type", "EvalHok", "evaluation.type: there is no type 'EvalHok'"),
        ("checkpoint_config.type", "Checkpoint", "checkpoint_config.type: there is no type 'Checkpoint'"),
        ("log_config.hooks.0.type", "TextLogger", "log_config.hooks.0.type: there is no"),
        ("custom_hooks", [dict(type="EMA")], "custom_hooks.0.type: there is no"),
    ],
)
def test_a_whole_configuration_is_checked_with_places(tree, place, value, said):
    for section in ("evaluation", "checkpoint_config"):
        tree.setdefault(section, dict(interval=1))
    tree.setdefault("log_config", dict(interval=1, hooks=[dict(type="TextLoggerHook")]))
    check(tree)
    node, keys = tree, place.split(".")
    for key in keys[:-1]:
        node = node[int(key) if key.isdigit() else key]
    node[keys[-1]] = value
    with pytest.raises(ConfigError, match=said):
        check(tree)


@DETECTORS.register_module()
class MyFormer(BEVFormer):
    """A fork's own, with an argument more."""

    def __init__(self, shiny=False, **model):
        super().__init__(**model)
        self.shiny = shiny


def test_a_detector_derived_from_ours_is_built_and_checked(tree):
    tree.model.update(type="MyFormer", shiny=True)
    assert mmdet3d.models.build_model(tree.model).shiny
    check(tree)
    tree.model.pts_bbox_head.loss_cls.type = "FocaLoss"
    with pytest.raises(ConfigError, match="model.pts_bbox_head.loss_cls.type(.|\n)*Close to it: .*FocalLoss"):
        check(tree)


def test_nested_names_of_another_detector_are_checked(tree):
    nms = dict(type="nms", iou_threshold=0.5)
    tree.model = ConfigDict(type="RetinaNet", backbone=dict(type="ResNet"), test_cfg=dict(nms=nms))
    check(tree)
    tree.model.backbone = dict(type="ResNet", norm_cfg=dict(type="BN7"))
    with pytest.raises(ConfigError, match="model.backbone.norm_cfg.type: there is no type 'BN7'"):
        check(tree)


def test_a_step_without_a_type_is_named_by_the_data_set(tree):
    del tree.data.train.pipeline[1]["type"]
    with pytest.raises(ConfigError, match="pipeline.1 has no type"):
        mmdet3d.datasets.build_dataset(tree.data.train)


def test_steps_of_another_package_are_left_to_it(tree):
    tree.data.train.pipeline.append(dict(type="Albu", transforms=[dict(type="ShiftScaleRotate")]))
    check(tree)


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(samples_per_gpu=1), "samples_per_gpu: not of a data set but of its loader"),
        (dict(queue_lenght=3), "no argument queue_lenght\nClose to it: queue_length"),
        (dict(queue_length=0), "queue_length = 0 cannot be honoured"),
        (dict(queue_length=2.0), "queue_length = 2.0 cannot be honoured"),
    ],
)
def test_what_the_data_set_does_not_take_is_named(tree, changes, said):
    tree.data.train.update(changes)
    with pytest.raises(ConfigError, match=said):
        mmdet3d.datasets.build_dataset(tree.data.train)


def test_an_infos_file_that_is_not_there_is_a_sentence(tree):
    tree.data.train.ann_file = "nowhere.pkl"
    with pytest.raises(DataError, match="cannot read nowhere.pkl(.|\n)*data prepare"):
        mmdet3d.datasets.build_dataset(tree.data.train)


def test_a_step_that_nobody_knows_is_named_by_the_data_set(tree):
    tree.data.train.pipeline[1].type = "PhotoMetricDistorsionMultiViewImage"
    said = "pipeline.1.type(.|\n)*Close to it: PhotoMetricDistortionMultiViewImage"
    with pytest.raises(ConfigError, match=said):
        mmdet3d.datasets.build_dataset(tree.data.train)


def test_a_second_plugin_is_refused_by_name_in_either_order():
    class Other:
        """Stands for upstream's own plugin."""

    with pytest.raises(ConfigError, match="BEVFormer is registered twice: by bevformer.mm.detector"):
        DETECTORS.register_module(name="BEVFormer", module=Other)
    DETECTORS.register_module(name="BEVFormer", module=Other, force=True)
    try:
        with pytest.raises(ConfigError, match="already registered: BEVFormer by"):
            register.register()
        assert DETECTORS.get("BEVFormer") is Other
    finally:
        register.register(force=True)
    assert DETECTORS.get("BEVFormer") is BEVFormer
    register.register()
