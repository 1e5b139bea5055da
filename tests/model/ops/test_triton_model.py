"""A whole model by Triton's kernels, as `auto` takes them on a GPU: losses and every parameter's gradient."""

import pytest
import torch

pytest.importorskip("triton", reason="no Triton here: make test-ops")
pytest.importorskip("scipy", reason="the matching needs scipy")
import filled

from bevformer.config import override, preset
from bevformer.errors import ConfigError
from bevformer.ops import backends

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="with a GPU Triton compiles; test_full_size"
)
SMALL = ["encoder.bev_h=4", "encoder.bev_w=4", "head.num_query=6", "transformer.dropout=0.0"]
SMALL += ["transformer.embed_dims=32", "transformer.ffn_dims=32"]


@pytest.fixture(scope="module", autouse=True)
def as_on_a_gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "PREFERRED", {"cpu": ("triton",)})
        backends.choose.cache_clear()
        yield
    backends.choose.cache_clear()


def a_step(attention, dtype):
    """Losses and gradients, in float64."""
    model = filled.model_of(override(preset("bevformer_micro"), [*SMALL, attention])).to(dtype).train()
    losses = model.loss(filled.sample())
    sum(losses.values()).backward()
    named = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return dict(named, **{name: loss.detach().double() for name, loss in losses.items()})


def test_a_training_step_gives_every_parameter_float64s_gradient():
    found = a_step("ops.attention=auto", torch.float32)
    assert backends.choose("auto", "cpu").name == "triton"
    true = a_step("ops.attention=reference", torch.float64)
    apart = {
        name: float((found[name] - each).norm() / each.norm()) for name, each in true.items() if each.any()
    }
    assert len(apart) > 100 and max(apart.values()) < 1e-5, apart


def test_a_model_in_float64_is_refused():
    with pytest.raises(ConfigError, match="an input is torch.float64"):
        a_step("ops.attention=auto", torch.float64)
