"""What of bevformer.mm runs without OpenMMLab: boxes, sections of a configuration, frames."""

import numpy as np
import pytest
import torch
from upstream_files import TEMPLATE, TINY, write

from bevformer.boxes import gravity_to_bottom, legacy_to_new
from bevformer.config import preset
from bevformer.errors import ConfigError
from bevformer.mm import boxes as mm_boxes
from bevformer.mm.config import read_model
from bevformer.mm.frames import meta_of, samples_of
from bevformer.upstream_reader import read_upstream


class Boxes:
    """As mmdet3d's: a bottom-centred tensor."""

    def __init__(self, tensor, box_dim=9, origin=(0.5, 0.5, 0)):
        self.tensor = tensor.clone()
        self.tensor[:, 2] -= tensor[:, 5] * origin[2]
        assert tensor.shape[1] == box_dim

    @property
    def gravity_center(self):
        raised = self.tensor[:, :3].clone()
        raised[:, 2] += self.tensor[:, 5] * 0.5
        return raised


OURS = torch.tensor([[1.0, 2, 0.5, 1.9, 4.6, 1.6, 0.3, 1, 0], [5, -3, 0, 0.7, 0.6, 1.8, -3.0, 0, 2]])


@pytest.mark.parametrize("convention", ["0.17", "1.0"])
def test_boxes_go_to_mmdet3d_and_come_back(convention):
    there = mm_boxes.to_mmdet3d(OURS, Boxes, convention)
    expected = gravity_to_bottom(OURS if convention == "0.17" else legacy_to_new(OURS))
    assert np.allclose(there.tensor, expected, atol=1e-6)
    assert torch.allclose(mm_boxes.from_mmdet3d(there, convention), OURS, atol=1e-6)


def test_boxes_without_velocity_are_refused():
    with pytest.raises(ConfigError, match="7 numbers"):
        mm_boxes.from_mmdet3d(Boxes(OURS[:, :7], 7), "1.0")


def test_results_tell_their_convention_by_their_cars():
    cars = Boxes(OURS[:1].expand(40, -1))
    found = {"boxes_3d": cars, "labels_3d": torch.zeros(40), "scores_3d": torch.ones(40)}
    assert mm_boxes.of_results([found]) == "0.17"
    assert mm_boxes.of_results([dict(found, scores_3d=torch.zeros(40))]) is None


def section(folder, **changes):
    return dict(read_upstream(write(folder, TEMPLATE.format(**TINY)))["model"], **changes)


def test_the_section_model_alone_gives_the_preset(tmp_path):
    config, start = read_model(section(tmp_path, pretrained={"img": "torchvision://resnet50"}))
    for part in ("backbone", "neck", "transformer", "encoder", "decoder", "head"):
        assert getattr(config, part) == getattr(preset("bevformer_tiny"), part)
    assert (start.backbone, start.whole) == ("torchvision://resnet50", None)


def test_init_cfg_is_where_weights_start(tmp_path):
    weights = dict(type="Pretrained", checkpoint="r50.pth")
    tree = section(tmp_path, init_cfg=dict(weights, checkpoint="all.pth"))
    tree["img_backbone"] = dict(tree["img_backbone"], init_cfg=weights)
    start = read_model(tree)[1]
    assert (start.backbone, start.whole) == ("r50.pth", "all.pth")
    assert read_model(section(tmp_path, init_cfg=[weights]))[1].whole == "r50.pth"


@pytest.mark.parametrize(
    "init_cfg, named",
    [
        (dict(type="Kaiming"), "model.init_cfg = {'type': 'Kaiming'} cannot be honoured"),
        ([dict(type="Kaiming"), dict(type="Normal")], "model.init_cfg = [{'type': 'Kaiming'}, {'type': 'Nor"),
        ("Pretrained", "model.init_cfg = 'Pretrained' cannot be honoured"),
    ],
)
def test_weights_that_start_otherwise_are_named(tmp_path, init_cfg, named):
    with pytest.raises(ConfigError) as caught:
        read_model(section(tmp_path, init_cfg=init_cfg))
    assert named in str(caught.value) and "type =" not in caught.value.seen


def head(folder, **changes):
    return dict(section(folder)["pts_bbox_head"], **changes)


def test_none_where_there_is_no_such_option_says_nothing(tmp_path):
    plain = read_model(section(tmp_path))[0]
    tree = section(tmp_path, train_cfg=None, test_cfg=None, pretrained=None, pts_backbone=None)
    tree["pts_bbox_head"] = head(tmp_path, train_cfg=None, test_cfg=None)
    assert read_model(tree)[0] == plain


@pytest.mark.parametrize("place", ["img_neck", "img_backbone"])
def test_none_in_place_of_what_the_model_has_is_refused(tmp_path, place):
    with pytest.raises(ConfigError, match="model.%s = None cannot be honoured" % place):
        read_model(section(tmp_path, **{place: None}))


def test_a_head_of_ones_own_is_told_where_it_can_be_built(tmp_path):
    with pytest.raises(ConfigError, match="'MyHead' cannot be honoured(.|\n)*build_head"):
        read_model(section(tmp_path, pts_bbox_head=head(tmp_path, type="MyHead")))


@pytest.mark.parametrize(
    "change, named",
    [
        (dict(img_backbone=dict(type="ResNett")), "model.img_backbone.type = 'ResNett'"),
        (dict(img_backbone=dict(type="ResNet", dept=50)), "Known are: model.img_backbone.depth"),
        (dict(pts_backbone=dict(type="SECOND")), "model.pts_backbone.type = 'SECOND'"),
        (dict(train_cfg=dict(pts=dict(assigner=dict(type="Hungarian")))), "assigner.type = 'Hungarian'"),
    ],
)
def test_what_cannot_be_honoured_is_named_with_its_place(tmp_path, change, named):
    with pytest.raises(ConfigError) as caught:
        read_model(section(tmp_path, **change))
    assert named in str(caught.value)
    assert "preset='bevformer_tiny'" in caught.value.do and "--cfg-options" not in str(caught.value)


def test_a_preset_and_options():
    config, _ = read_model({}, "bevformer_micro", ["head.num_query=30", "ops.attention=reference"])
    assert (config.head.num_query, config.ops.attention) == (30, "reference")
    with pytest.raises(ConfigError, match="img_neck"):
        read_model({"img_neck": {"num_outs": 1}}, "bevformer_micro")


def meta(**changes):
    eye = [np.eye(4)] * 6
    base = dict(
        lidar2img=eye, can_bus=np.zeros(18), img_shape=[(64, 96, 3)] * 6, scene_token="s", sample_idx="t"
    )
    return dict(base, **changes)


def test_metas_become_ours():
    found = meta_of(meta(prev_bev_exists=True))
    assert found.img_shape_hw == (64, 96) and found.prev_bev_exists and found.lidar2img_N44.shape == (6, 4, 4)
    with pytest.raises(ConfigError, match="can_bus"):
        meta_of({key: value for key, value in meta().items() if key != "can_bus"})


def test_a_batch_becomes_samples():
    images, labels = torch.zeros(1, 2, 6, 3, 4, 4), [torch.tensor([0, 1])]
    boxes = [mm_boxes.to_mmdet3d(OURS, Boxes, "1.0")]
    (sample,) = samples_of(images, [{0: meta(sample_idx="a"), 1: meta(sample_idx="b")}], boxes, labels, "1.0")
    assert [frame.meta.sample_token for frame in sample.frames] == ["a", "b"]
    assert torch.allclose(sample.truth.boxes_G9, OURS, atol=1e-6)
    with pytest.raises(ConfigError, match="a queue of 2 images with 1 img_metas"):
        samples_of(images, [{0: meta()}], boxes, labels, "1.0")
