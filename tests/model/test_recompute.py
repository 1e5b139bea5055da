"""A recomputed part gives the numbers of one that is not, to the bit, and keeps its inputs only."""

import pytest
import torch
from torch import nn

from bevformer.amp import bf16_works_on_cpu
from bevformer.recompute import recompute
from bevformer.saved import SavedBytes


def layer(seed, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, width), nn.LayerNorm(width)
    )


def run(wrap, steps=2):
    """Output, every gradient after `steps` backward passes, and the next random number."""
    first, second = layer(1), layer(2)
    x = torch.randn(5, 8, requires_grad=True)
    torch.manual_seed(3)
    for _ in range(steps):
        middle = wrap(first, x)
        out = wrap(second, middle + x) * torch.rand(5, 1)  # drawn after the part
        (out.sin().sum() + middle.sum()).backward()
    gradients = [x.grad, *(p.grad for m in (first, second) for p in m.parameters())]
    return [out.detach(), *gradients, torch.rand(1)]


def nested(module, x):
    return recompute(lambda y: recompute(module[2:], recompute(module[:2], y)), x)


@pytest.mark.parametrize("wrap", [recompute, nested])
def test_numbers_gradients_and_the_random_stream_are_the_same_to_the_bit(wrap):
    plain, again = run(lambda module, x: module(x)), run(wrap)
    assert all(torch.equal(a, b) for a, b in zip(plain, again))


@pytest.mark.parametrize("wrap", [recompute, nested])
def test_only_the_inputs_wait_for_the_backward_pass(wrap):
    module, x = layer(1), torch.randn(50, 8, requires_grad=True)
    saved = SavedBytes(module)
    with saved.counting("all"):
        out = wrap(module, x)
    assert saved.total == x.numel() * 4
    out.sum().backward()


def test_a_part_whose_input_needs_no_gradient_still_trains_its_weights():
    module = layer(1)
    recompute(module, torch.randn(5, 8)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_the_graph_can_be_walked_twice():
    module, x = layer(1), torch.randn(5, 8, requires_grad=True)
    out = recompute(module, x).sin().sum()
    (first,) = torch.autograd.grad(out, x, retain_graph=True)
    (second,) = torch.autograd.grad(out, x)
    assert torch.equal(first, second)


def test_without_gradients_the_function_is_called_and_nothing_kept():
    with torch.no_grad():
        assert recompute(lambda a, b: a + b, torch.ones(2), 1.0).tolist() == [2, 2]


def test_a_function_that_does_something_else_the_second_time_is_told():
    rounds = []

    def fickle(x):
        rounds.append(1)
        return x.sin() if len(rounds) == 1 else x.sin().cos()

    with pytest.raises(RuntimeError, match="not repeatable"):
        recompute(fickle, torch.ones(2, requires_grad=True)).sum().backward()


@pytest.mark.skipif(not bf16_works_on_cpu(), reason="this torch has no bf16 on the CPU")
def test_autocast_is_in_the_second_run_what_it_was_in_the_first():
    def gradient(wrap):
        module, x = nn.Linear(8, 8), torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
        nn.init.constant_(module.weight, 0.1)
        nn.init.zeros_(module.bias)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            out = wrap(lambda y: module(module(y).relu()), x)
        out.float().sin().sum().backward()  # outside autocast, as the loop does
        return module.weight.grad

    assert torch.equal(gradient(recompute), gradient(lambda module, x: module(x)))
