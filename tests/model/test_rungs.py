"""Every memory rung against the same model without it: identical ones to the bit, the others closely."""

import copy

import numpy as np
import pytest
import torch
from small_base import small
from torch import nn

from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError
from bevformer.ledger import CHANGES, IDENTICAL, ROUNDING, STATISTICS
from bevformer.nominal import image_size, nominal_sample
from bevformer.rungs import LADDER, apply_rungs, other_models, rungs_for, rungs_up_to

EXACT = [rung.name for rung in rungs_up_to(IDENTICAL)]


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(2)  # with 0, 1, 4 and 6 all of a ReLU is dead in some block of so small a model
    return lively(build_model(small()))


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
    dead = [key for key, each in gradients.items() if each is None or not each.abs().sum() > 0]
    assert not dead
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
    torch.manual_seed(0)
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


def test_a_batch_as_ranks_of_one_sample_has_its_gradient():
    options = [f"schedule.{key}" for key in ("samples_per_gpu=2", "world_size=4")]
    single = other_models(override(preset("bevformer_micro"), options))[0]
    assert single.effect == STATISTICS
    assert single.cfg_options == ("schedule.samples_per_gpu=1", "schedule.world_size=8")
    torch.manual_seed(0)
    model = lively(build_model(preset("bevformer_micro")))  # no dropout, no GridMask
    samples = [nominal_sample(model.config, image_size(model.config), seed=10 * at) for at in range(2)]
    (sum(model.loss(samples, None, 64.0).values()) / 4).backward()
    batch = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    for each in samples:  # eight ranks: half as many positives each
        (sum(model.loss(each, None, 32.0).values()) / 8).backward()
    single = [p.grad for p in model.parameters() if p.requires_grad]
    # Rounding moves a sample over the edge of a cell now and then, where the gradient jumps.
    assert all((a - b).norm() <= 1e-3 * a.norm() for a, b in zip(batch, single))


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
