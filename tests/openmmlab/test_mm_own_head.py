"""A fork's head, derived from ours, inside the bundled detector: run by its own methods, as upstream's is."""

import copy

import numpy as np
import pytest
import torch
from mmcv.parallel import MMDataParallel, collate
from mmcv.utils import ConfigDict
from mmdet.datasets import build_dataloader
from mmdet.models.builder import HEADS
from mmdet3d.apis import single_gpu_test
from mmdet3d.models import build_model

import mm_case
from bevformer.errors import ConfigError
from bevformer.mm.head import BEVFormerHead
from bevformer.mm.names import check


@HEADS.register_module()
class SameHead(BEVFormerHead):
    """Nothing of its own."""


@HEADS.register_module()
class DepthHead(BEVFormerHead):
    """A branch, an output, a loss and a filter of its own."""

    def __init__(self, depth_weight=1.0, **section):
        super().__init__(**section)
        self.depth_weight, self.drawn = depth_weight, 0
        self.depth = torch.nn.Linear(256, 1)

    def init_weights(self):
        super().init_weights()
        self.drawn += 1

    def forward(self, mlvl_feats, img_metas, prev_bev=None, only_bev=False):
        outs = super().forward(mlvl_feats, img_metas, prev_bev, only_bev)
        return outs if only_bev else dict(outs, depth=self.depth(outs["bev_embed"]))

    def loss(self, boxes, labels, outs, gt_bboxes_ignore=None, img_metas=None):
        found = super().loss(boxes, labels, outs, img_metas=img_metas)
        return dict(found, loss_depth=self.depth_weight * outs["depth"].abs().mean())

    def get_bboxes(self, outs, img_metas, rescale=False):
        return [[each[:5] for each in found] for found in super().get_bboxes(outs, img_metas, rescale)]


@HEADS.register_module()
class HistorylessHead(BEVFormerHead):
    def forward(self, *inputs, **options):
        return {"all_cls_scores": None}


@pytest.fixture(scope="module")
def case(tmp_path_factory, synth):
    torch.manual_seed(0)
    return mm_case.both(tmp_path_factory.mktemp("config"), synth)


def with_head(case, kind, **own):
    """The case's model with another head; the same weights, as far as both have them."""
    section = copy.deepcopy(case.config.model)
    section.pts_bbox_head.update(type=kind, **own)
    model = build_model(section)
    report = model.load_state_dict(case.theirs.model.state_dict(), strict=False)
    assert not report.unexpected_keys
    return model


def losses_of(model, data):
    model.train()
    torch.manual_seed(1)  # dropout
    with torch.no_grad():
        np.random.seed(4)  # GridMask
        return {
            key: float(value)
            for key, value in model(
                img=data["img"].data[0],
                img_metas=data["img_metas"].data[0],
                gt_bboxes_3d=data["gt_bboxes_3d"].data[0],
                gt_labels_3d=data["gt_labels_3d"].data[0],
            ).items()
        }


def test_a_head_that_changes_nothing_has_the_losses_and_boxes_of_the_bundled(case):
    model = with_head(case, "SameHead")
    assert type(model.pts_bbox_head) is SameHead and list(model.state_dict()) == list(
        case.theirs.model.state_dict()
    )
    data = collate([case.theirs.train.queue([0, 1]), case.theirs.train.queue([1, 2])], 2)
    wanted = losses_of(case.theirs.model, data)
    assert losses_of(model, data) == pytest.approx(wanted, rel=1e-5)
    found = [evaluated(case, each) for each in (model, case.theirs.model)]
    assert len(found[0]) == 3
    for one, two in zip(*found):
        assert torch.allclose(one["boxes_3d"].tensor, two["boxes_3d"].tensor, atol=1e-4)
        assert torch.equal(one["labels_3d"], two["labels_3d"])


def evaluated(case, model):
    loader = build_dataloader(case.theirs.test, 1, 0, num_gpus=1, dist=False, shuffle=False)
    return [each["pts_bbox"] for each in single_gpu_test(MMDataParallel(model.eval(), device_ids=[]), loader)]


def test_its_own_branch_loss_and_boxes_are_asked(case):
    model = with_head(case, "DepthHead", depth_weight=3.0)
    data = collate([case.theirs.train.queue([1, 2])], 1)
    found = model.train_step(
        {key: value.data[0] for key, value in data.items()}, torch.optim.SGD(model.parameters(), 0.1)
    )
    assert found["log_vars"]["loss_depth"] > 0
    found["loss"].backward()
    assert model.pts_bbox_head.depth.weight.grad.abs().sum() > 0
    assert [len(each["scores_3d"]) for each in evaluated(case, model)] == [5, 5, 5]
    model.init_weights()
    assert model.pts_bbox_head.drawn == 1


def test_the_attentions_of_its_section_run_on_the_backend_that_is_asked_for(case):
    model = build_model(
        ConfigDict(
            copy.deepcopy(case.config.model),
            pts_bbox_head=dict(case.config.model.pts_bbox_head, type="SameHead"),
            options=["ops.attention=reference"],
        )
    )
    kinds = {each.backend for each in model.pts_bbox_head.modules() if hasattr(each, "backend")}
    assert kinds == {"reference"}


def test_the_whole_file_is_checked_with_it(case):
    tree = copy.deepcopy(case.config)
    tree.model.pts_bbox_head.update(type="DepthHead", depth_weight=2.0)
    check(tree)
    tree.model.pts_bbox_head.loss_cls.type = "FocaLoss"
    with pytest.raises(ConfigError, match="pts_bbox_head.loss_cls.type(.|\n)*Close to it: .*FocalLoss"):
        check(tree)


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(type="SamHead"), "model.pts_bbox_head.type: there is no type 'SamHead'\nClose to it: SameHead"),
        (dict(type="Anchor3DHead"), "type = 'Anchor3DHead' cannot be honoured\n.*class derives from it"),
        (dict(type="DepthHead", depth_wieght=2.0), "depth_wieght = 2.0 cannot be honoured"),
        (dict(type="SameHead", bev_h=21), "row_num_embed = 20 cannot be honoured"),
    ],
)
def test_what_cannot_be_its_head_is_named(case, changes, said):
    section = copy.deepcopy(case.config.model)
    section.pts_bbox_head.update(changes)
    with pytest.raises(ConfigError, match=said):
        build_model(section)


def test_options_of_a_head_that_is_built_already_are_refused(case):
    section = ConfigDict(copy.deepcopy(case.config.model), options=["head.num_query=7"])
    section.pts_bbox_head.type = "SameHead"
    with pytest.raises(ConfigError, match=r"options: head.\* cannot be honoured by SameHead"):
        build_model(section)


def test_what_would_pass_its_methods_over_is_refused(case):
    model = with_head(case, "SameHead").eval()
    for call in (model, model.step):
        with pytest.raises(ConfigError, match="with SameHead\n"):
            call(None)


def test_an_output_without_history_is_named(case):
    model = with_head(case, "HistorylessHead").eval()
    with pytest.raises(ConfigError, match="forward of HistorylessHead gives no bev_embed"):
        evaluated(case, model)
