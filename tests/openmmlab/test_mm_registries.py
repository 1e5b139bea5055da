"""Registries of mmcv, mmdet, mmseg and mmdet3d: none ends in a KeyError of its own."""

import mmcv.cnn
import mmdet3d.models
import pytest
import torch
from mmcv.utils import ConfigDict, Registry, build_from_cfg
from mmdet.core import build_optimizer
from mmdet.core.bbox.builder import build_sampler
from mmdet.datasets.builder import PIPELINES
from mmdet.models.builder import DETECTORS
from mmdet.models.utils.builder import build_linear_layer
from mmdet3d.ops.pointnet_modules.builder import build_sa_module

import bevformer.mm.register  # noqa: F401
from bevformer.errors import ConfigError
from bevformer.mm.registries import Explaining, every

REGISTRIES = {"%s-%s" % (each.scope, each.name.replace(" ", "-")): each for each in every()}


@pytest.mark.parametrize("name", list(REGISTRIES))
def test_a_name_that_no_registry_knows_is_a_sentence(name):
    registry = REGISTRIES[name]
    assert registry.get("Nope") is None and "Nope" not in registry and registry.get("elsewhere.Nope") is None
    for key in ("Nope", "elsewhere.Nope"):
        with pytest.raises(ConfigError, match="%s: there is no type '%s'" % (registry.name, key)):
            build_from_cfg(dict(type=key), registry)


def test_those_of_all_packages_are_among_them():
    assert {"mmdet3d-models", "mmseg-models", "mmdet-bbox_sampler", "mmdet3d-Object-sampler"} <= set(
        REGISTRIES
    )
    assert {"mmcv-position-encoding", "mmcv-feed-forward-Network", "mmcv-optimizer-builder"} <= set(
        REGISTRIES
    )


def optimizer(**changes):
    return build_optimizer(torch.nn.Linear(1, 1), dict(dict(type="AdamW", lr=1), **changes))


@pytest.mark.parametrize(
    "build, said",
    [
        (
            lambda: mmdet3d.models.build_loss(ConfigDict(type="FocaLoss")),
            "'FocaLoss'\nClose to it: FocalLoss",
        ),
        (lambda: optimizer(constructor="DefaultConstructor"), "DefaultOptimizerConstructor"),
        (lambda: optimizer(type="AdamWW"), "AdamW"),
        (lambda: build_sampler(dict(type="PseudoSamplr")), "PseudoSampler"),
        (lambda: mmcv.cnn.build_norm_layer(dict(type="BN7"), 4), "Close to it: BN."),
        (lambda: mmcv.cnn.build_conv_layer(dict(type="Conv7d")), "Conv1d"),
        (lambda: mmcv.cnn.build_padding_layer(dict(type="zeros")), "zero"),
        (lambda: mmcv.cnn.build_plugin_layer(dict(type="ContextBlok")), "ContextBlock"),
        (lambda: mmcv.cnn.build_upsample_layer(dict(type="bilinea")), "bilinear"),
        (lambda: build_linear_layer(dict(type="Linea")), "Linear"),
        (lambda: build_sa_module(dict(type="PointSAModul")), "PointSAModule"),
    ],
)
def test_builders_that_ask_first_say_it_too(build, said):
    with pytest.raises(ConfigError) as caught:
        build()
    assert "there is no type" in str(caught.value) and said in str(caught.value)


def test_what_is_there_is_built_and_asking_is_no_error():
    assert optimizer(constructor="DefaultOptimizerConstructor").defaults["lr"] == 1
    assert isinstance(mmcv.cnn.build_norm_layer(dict(type="BN"), 4)[1], torch.nn.BatchNorm2d)
    assert "ResNet" in DETECTORS and DETECTORS.get("mmdet.ResNet") is DETECTORS.get("ResNet")
    assert "BN7" not in mmcv.cnn.NORM_LAYERS and "Nope" not in PIPELINES


def test_ones_own_class_registered_twice_is_not_told_of_plugins():
    cells = Registry("cells", scope="mmdet3d")
    cells.__class__ = Explaining
    cells.register_module(name="Mine", module=type("Mine", (), {"__module__": "__main__"}))
    with pytest.raises(ConfigError, match="twice: by __main__ and by __main__") as caught:
        cells.register_module(name="Mine", module=type("Mine", (), {"__module__": "__main__"}))
    assert "plugin" not in str(caught.value) and "force=True" in str(caught.value)
    with pytest.raises(ConfigError, match="leave out plugin/plugin_dir"):
        DETECTORS.register_module(name="BEVFormer", module=type("Other", (), {}))
