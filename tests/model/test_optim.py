"""The optimiser's groups and the learning rate, against the facts' formulas."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bevformer.config import preset
from bevformer.optim import build_optimizer, clip_gradients, lr_factor, param_groups, set_lr

TINY = preset("bevformer_tiny").schedule
MICRO = preset("bevformer_micro").schedule


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.img_backbone = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.pts_bbox_head = nn.Linear(2, 2)
        for parameter in self.img_backbone[0].parameters():
            parameter.requires_grad = False


def test_only_trainable_backbone_parameters_get_a_tenth():
    model = Toy()
    groups = {group["name"]: group for group in param_groups(model, TINY)}
    assert groups["backbone"]["lr"] == pytest.approx(2e-5)
    live = {id(p) for p in model.img_backbone[1].parameters()}
    assert {id(p) for p in groups["backbone"]["params"]} == live
    assert groups["rest"]["lr"] == pytest.approx(2e-4)
    frozen = {id(p) for p in model.img_backbone[0].parameters()}
    assert frozen <= {id(p) for p in groups["rest"]["params"]}


def test_adamw_has_the_published_numbers():
    group = build_optimizer(Toy(), TINY).param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.01)


@pytest.mark.parametrize("epoch", [1, 7, 12, 23])
def test_cosine_is_set_once_per_epoch(epoch):
    lr, per_epoch = 2e-4, 3516
    expected = lr / 1000 + 0.4995 * lr * (1 + math.cos(math.pi * epoch / 24))
    for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
        assert lr * lr_factor(TINY, step, per_epoch) == pytest.approx(expected)


def test_warm_up_is_linear_from_a_third_over_500_iterations():
    assert lr_factor(TINY, 0, 3516) == pytest.approx(1 / 3)
    assert lr_factor(TINY, 250, 3516) == pytest.approx(2 / 3)
    assert lr_factor(TINY, 500, 3516) == pytest.approx(1.0)


def test_step_recipes_follow_the_cosine_per_step():
    assert lr_factor(MICRO, 700, 40) == pytest.approx(0.505)
    assert lr_factor(MICRO, 1400, 40) == pytest.approx(0.01)
    assert lr_factor(MICRO, 1000, 40) > lr_factor(MICRO, 1001, 40)


def test_warm_up_of_zero_steps_starts_at_the_full_rate():
    assert lr_factor(replace(MICRO, warmup_steps=0), 0, 40) == pytest.approx(1.0)


def test_set_lr_scales_every_group_from_its_own_rate():
    optimizer = build_optimizer(Toy(), TINY)
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-5, 1e-4])


def test_clipping_is_over_the_common_norm_and_returns_it():
    model = nn.Linear(3, 1)
    model.weight.grad = torch.tensor([[30.0, 40.0, 0.0]])
    model.bias.grad = torch.tensor([120.0])
    assert clip_gradients(model, 35.0) == pytest.approx(130.0)
    clipped = torch.cat([model.weight.grad.flatten(), model.bias.grad])
    assert float(clipped.norm()) == pytest.approx(35.0, rel=1e-4)


def test_fused_kernel_is_used_on_a_cpu_that_has_it():
    built = build_optimizer(Toy(), MICRO)
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    assert bool(built.param_groups[0].get("fused")) == (version >= (2, 4))
