"""Detector, head, assigner, coder and weights: each as the bundled one, behind mmdet3d's interface."""

import copy
import json
import warnings

import mmdet3d
import numpy as np
import pytest
import torch
from mmcv import Config
from mmcv.parallel import MMDataParallel
from mmcv.runner import save_checkpoint
from mmcv.utils import ConfigDict
from mmdet.core.bbox.builder import build_assigner, build_bbox_coder
from mmdet.datasets import build_dataloader
from mmdet3d.apis import single_gpu_test
from mmdet3d.core.bbox import LiDARInstance3DBoxes
from mmdet3d.datasets import build_dataset
from mmdet3d.models import build_head, build_model
from upstream_files import TEMPLATE, VARIANTS, write

import bevformer.mm.register  # noqa: F401
import mm_case
from bevformer.boxes import corners
from bevformer.config import preset
from bevformer.errors import CheckpointError, ConfigError
from bevformer.key_tables import preset_tables, shapes_of
from bevformer.matching import match
from bevformer.mm import detector
from bevformer.mm.boxes import convention_of, from_mmdet3d, to_mmdet3d
from bevformer.types import GroundTruth

CONVENTION = convention_of(mmdet3d.__version__)
BOXES = torch.tensor([[1.0, 2, 0.5, 1.9, 4.6, 1.6, 0.3, 1, 0], [5, -3, 0, 0.7, 0.6, 1.8, -3.0, 0, 2]])


@pytest.mark.parametrize("name", list(VARIANTS))
def test_an_upstream_file_builds_the_preset_with_its_keys(tmp_path, name):
    config = Config.fromfile(str(write(tmp_path, TEMPLATE.format(**VARIANTS[name]), name)))
    model = build_model(config.model)
    assert type(model) is detector.BEVFormer
    assert shapes_of(model.state_dict()) == preset_tables()[name]
    assert list(model.state_dict())[0] == "pts_bbox_head.code_weights"
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert "img_backbone.conv1.weight" in frozen and "pts_bbox_head.code_weights" in frozen


def test_mmdet3ds_boxes_have_our_corners():
    there = to_mmdet3d(BOXES, LiDARInstance3DBoxes, CONVENTION)
    assert torch.allclose(from_mmdet3d(there, CONVENTION), BOXES, atol=1e-6)
    assert torch.allclose(there.gravity_center, BOXES[:, :3])
    theirs, ours = there.corners.numpy(), corners(BOXES)
    for mine, other in zip(ours, theirs):
        assert np.allclose(sorted(mine.round(4).tolist()), sorted(other.round(4).tolist()), atol=1e-3)


def outputs(count=30, seed=0):
    torch.manual_seed(seed)
    return torch.randn(count, 10), torch.randn(count, 10)


def test_the_assigner_matches_as_the_bundled_head():
    logits, codes = outputs()
    truth = GroundTruth(BOXES, torch.tensor([0, 8]))
    costs = dict(
        cls_cost=dict(type="FocalLossCost", weight=2.0), reg_cost=dict(type="BBox3DL1Cost", weight=0.25)
    )
    found = build_assigner(
        dict(type="HungarianAssigner3D", iou_cost=dict(type="IoUCost", weight=0.0), pc_range=[0] * 6, **costs)
    ).assign(codes, logits, truth.boxes_G9, truth.labels_G)
    queries, boxes = match(logits, codes, truth)
    assert found.gt_inds[queries].tolist() == (boxes + 1).tolist()
    assert (
        int((found.gt_inds > 0).sum()) == 2
        and found.labels[queries].tolist() == truth.labels_G[boxes].tolist()
    )
    with pytest.raises(ConfigError, match="iou_cost.weight = 1.0"):
        build_assigner(dict(type="HungarianAssigner3D", iou_cost=dict(type="IoUCost", weight=1.0)))


def test_the_coder_decodes_as_the_bundled_head():
    logits, codes = outputs()
    coder = build_bbox_coder(
        dict(
            type="NMSFreeCoder",
            pc_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
            post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            max_num=20,
        )
    )
    (found,) = coder.decode({"all_cls_scores": logits[None, None], "all_bbox_preds": codes[None, None]})
    assert found["bboxes"].shape == (20, 9)
    assert torch.equal(found["scores"], logits.sigmoid().flatten().topk(20).values)


@pytest.fixture(scope="module")
def case(tmp_path_factory, synth):
    return mm_case.both(tmp_path_factory.mktemp("config"), synth)


def test_the_head_alone_gives_the_losses_of_the_whole(case):
    section = dict(case.config.model.pts_bbox_head, train_cfg=case.config.model.train_cfg.pts)
    head = build_head(ConfigDict(section)).eval()
    model = case.theirs.model.eval()
    head.load_state_dict(model.pts_bbox_head.state_dict())
    data = case.theirs.train.queue([1])
    metas, images = [data["img_metas"].data[0]], data["img"].data[None][:, 0]
    boxes, labels = data["gt_bboxes_3d"].data, data["gt_labels_3d"].data
    with torch.no_grad():
        outs = head(model.features(images), metas)
        found = head.loss([boxes], [labels], outs, img_metas=metas)
        wanted = model(
            img=images[:, None], img_metas=[{0: metas[0]}], gt_bboxes_3d=[boxes], gt_labels_3d=[labels]
        )
        ((shown, scores, _),) = head.get_bboxes(outs, metas)
        result = model(return_loss=False, rescale=True, img=[images], img_metas=[metas])[0]["pts_bbox"]
    assert {key: float(value) for key, value in found.items()} == pytest.approx(
        {key: float(value) for key, value in wanted.items()}, rel=1e-5
    )
    assert torch.allclose(shown.tensor, result["boxes_3d"].tensor, atol=1e-4) and len(scores) == 100


def test_a_list_of_points_is_refused_by_name(case):
    with pytest.raises(ConfigError, match="training was handed points"):
        case.theirs.model(img=None, img_metas=None, gt_bboxes_3d=None, gt_labels_3d=None, points=[1])


def test_a_test_pipeline_without_its_wrapper_is_named(case):
    part = case.config.data.test.copy()
    part.pipeline = [*part.pipeline[:2], *part.pipeline[2].transforms]
    loader = build_dataloader(build_dataset(part), 1, 0, num_gpus=1, dist=False, shuffle=False)
    with pytest.raises(ConfigError, match=r"one tensor \(1, 6, 3, (.|\n)*no MultiScaleFlipAug3D"):
        single_gpu_test(MMDataParallel(case.theirs.model.eval(), device_ids=[]), loader)


@pytest.mark.parametrize("key", ["points", "gt_depth"])
def test_a_key_that_no_step_has_made_is_named(case, key):
    part = copy.deepcopy(case.config.data.train)
    part.pipeline[-1]["keys"] = ["img", "gt_bboxes_3d", key]
    with pytest.raises(ConfigError, match="there is no %s to collect\n.* left: .*gt_bboxes_3d" % key):
        build_dataset(part).queue([1])


def test_pretrained_weights_are_loaded_by_init_weights(case, tmp_path):
    source = str(tmp_path / "r50.pth")
    backbone = case.theirs.model.img_backbone.state_dict()
    torch.save(backbone, source)
    model = build_model(ConfigDict(case.config.model, pretrained=dict(img=source)))
    torch.nn.init.zeros_(model.img_backbone.conv1.weight)
    (report,) = model.init_weights()
    assert report.coverage == 1.0
    assert torch.equal(model.img_backbone.conv1.weight, case.theirs.model.img_backbone.conv1.weight)
    missing = dict(type="Pretrained", checkpoint=str(tmp_path / "no"))
    with pytest.raises(CheckpointError, match="no weights at .*no"):
        build_model(ConfigDict(case.config.model, init_cfg=missing)).init_weights()


def test_a_checkpoint_of_an_older_mmdet3d_is_named_and_loaded(case, tmp_path):
    path = str(tmp_path / "epoch_24.pth")
    save_checkpoint(case.theirs.model, path, meta=dict(mmdet3d_version="0.17.1", epoch=24))
    model = build_model(case.config.model)
    with pytest.warns(UserWarning, match="mmdet3d 0.17.1: its boxes are"):
        assert detector.load(model, path)["epoch"] == 24
    for key, value in case.theirs.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.load(model, path, boxes="1.0")
    other = model.state_dict()["pts_bbox_head.reg_branches.0.4.weight"]
    assert not torch.equal(other, case.theirs.model.state_dict()["pts_bbox_head.reg_branches.0.4.weight"])


def test_a_file_of_another_model_is_refused(case, tmp_path):
    path = str(tmp_path / "other.pth")
    torch.save({"state_dict": {"x": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError):
        detector.load(build_model(case.config.model), path)


def test_results_of_the_other_convention_are_named_and_converted(case, tmp_path):
    cars = BOXES[:1].repeat(40, 1)
    other = "0.17" if CONVENTION == "1.0" else "1.0"
    found = dict(labels_3d=torch.zeros(40, dtype=torch.long), scores_3d=torch.ones(40))
    here = [
        dict(found, boxes_3d=to_mmdet3d(cars, LiDARInstance3DBoxes, CONVENTION))
        for _ in case.theirs.test.data_infos
    ]
    there = [dict(each, boxes_3d=to_mmdet3d(cars, LiDARInstance3DBoxes, other)) for each in here]
    case.theirs.test._format_bbox(here, str(tmp_path / "here"))
    with pytest.warns(UserWarning, match="by the sizes of their cars"):
        case.theirs.test._format_bbox(there, str(tmp_path / "there"))
    files = [
        json.load(open(str(tmp_path / name / "results_nusc.json")))["results"] for name in ("here", "there")
    ]
    for token, boxes in files[0].items():
        assert [box["size"] for box in boxes] == [box["size"] for box in files[1][token]]
        for one, two in zip(boxes, files[1][token]):
            assert one["rotation"] == pytest.approx(two["rotation"], abs=1e-6)


def test_micro_by_its_name_builds_too():
    model = build_model(ConfigDict(type="BEVFormer", preset="bevformer_micro", options=["head.num_query=20"]))
    assert model.config.encoder == preset("bevformer_micro").encoder and model.config.head.num_query == 20
