"""Every memory rung against the same model without it: identical ones to the bit, the others closely."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError
from bevformer.ledger import CHANGES, IDENTICAL, ROUNDING
from bevformer.nominal import image_size, nominal_sample
from bevformer.rungs import LADDER, apply_rungs, rungs_for, rungs_up_to

SMALL_BASE = [  # every kind of layer of the base model: DCNv2, four levels, history, dropout, GridMask
    "backbone.depth=50", "backbone.frozen_stages=1", "data.scale=0.06", "data.queue_length=2",
    "transformer.embed_dims=32", "transformer.ffn_dims=64", "transformer.num_heads=4",
    "encoder.bev_h=10", "encoder.bev_w=12", "encoder.num_layers=2", "decoder.num_layers=2",
    "head.num_query=12", "head.max_per_img=12",
]  # fmt: skip
EXACT = [rung.name for rung in rungs_up_to(IDENTICAL)]


def small(name):
    options = [*SMALL_BASE, "backbone.dcn_backend=reference"] if name == "bevformer_base" else []
    return override(preset(name), options)


@pytest.fixture(scope="module")
def base():
    return lively(build_model(small("bevformer_base")))


def lively(model):
    """Fresh sampling layers are all zero and would hide mistakes."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ("offset" in name or "attention_weights" in name):
            parameter.data.normal_(std=0.2, generator=generator)
    return model.train()


def some_steps(model, names, batch=1, steps=1):
    """Losses and accumulated gradients, and where the random streams stand afterwards."""
    model, rng = copy.deepcopy(model), np.random.RandomState(2)
    apply_rungs(model, names)
    torch.manual_seed(1)
    samples = [nominal_sample(model.config, image_size(model.config), seed=10 * at) for at in range(batch)]
    losses = []
    for _ in range(steps):
        terms = model.loss(samples, rng, 20.0)
        losses += [value.detach() for value in terms.values()]
        (sum(terms.values()) / 8).backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    return losses, gradients, (torch.get_rng_state(), torch.tensor(rng.rand()))


def assert_the_same(one, other):
    (losses, gradients, streams), (other_losses, other_gradients, other_streams) = one, other
    assert all(torch.equal(a, b) for a, b in zip(losses, other_losses))
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())
    assert not [key for key in gradients if not torch.equal(gradients[key], other_gradients[key])]
    assert all(torch.equal(a, b) for a, b in zip(streams, other_streams))


def test_what_is_called_identical_is_identical_to_the_bit(base):
    assert_the_same(some_steps(base, []), some_steps(base, EXACT))


@pytest.mark.slow
def test_each_identical_rung_is_so_alone_and_over_two_accumulated_steps(base):
    plain = some_steps(base, [], steps=2)
    for names in [*([name] for name in EXACT), EXACT]:
        assert_the_same(plain, some_steps(base, names, steps=2))


def test_a_batch_and_a_small_backbone_are_identical_too():
    model = lively(build_model(preset("bevformer_micro")))
    names = [rung.name for rung in rungs_for(model, IDENTICAL)]
    assert_the_same(some_steps(model, [], batch=2), some_steps(model, names, batch=2))


@pytest.mark.slow
def test_frozen_norms_are_equal_up_to_rounding(base):
    (losses, gradients, streams), (others, other_gradients, other_streams) = (
        some_steps(base, names) for names in ([], ["frozen-norms"])
    )
    assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(losses, others))
    for key, gradient in gradients.items():
        assert (gradient - other_gradients[key]).norm() <= 1e-3 * gradient.norm(), key
    assert torch.equal(streams[0], other_streams[0])


def test_weights_keys_and_modes_stay(base):
    model = copy.deepcopy(base)
    apply_rungs(model, [rung.name for rung in rungs_up_to(ROUNDING)])
    assert list(model.state_dict()) == list(base.state_dict())
    assert not any(m.training for m in model.train().modules() if isinstance(m, nn.BatchNorm2d))
    apply_rungs(model, [rung.name for rung in rungs_up_to(ROUNDING)])  # once more does no harm


def test_rungs_without_use_are_left_out():
    tiny = {rung.name for rung in rungs_for(build_model(preset("bevformer_micro")), CHANGES)}
    assert "dcn-taps" not in tiny and "frozen-norms" not in tiny and {"encoder-layers", "bf16"} <= tiny


def test_the_ladder_goes_from_mild_to_strong_and_every_rung_is_its_own():
    effects = [rung.effect for rung in LADDER]
    assert list(rungs_up_to(CHANGES)) == list(LADDER)
    assert effects == sorted(effects, key=[IDENTICAL, ROUNDING, "same statistics", CHANGES].index)
    assert len({rung.name for rung in LADDER}) == len(LADDER)


@pytest.mark.parametrize("name, words", [("magic", "unknown memory rung: 'magic'"), ("bf16", "--amp bf16")])
def test_what_cannot_be_applied_is_said(base, name, words):
    with pytest.raises(ConfigError) as caught:
        apply_rungs(base, ["encoder-layers", name])
    assert words in "%s %s" % (caught.value.seen, caught.value.do)
    assert not base.pts_bbox_head.transformer.encoder.recompute_layers
