"""Every attention block against its brute-force twin, in float64, for every shape class."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import brute  # noqa: E402

from bevformer.attention import (  # noqa: E402
    BEVCrossAttention,
    History,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from bevformer.config import DecoderConfig, EncoderConfig, TransformerConfig  # noqa: E402
from bevformer.decoder import Decoder, DecoderLayer, SelfAttention  # noqa: E402
from bevformer.encoder import EncoderLayer  # noqa: E402
from bevformer.geometry import gather_visible  # noqa: E402
from bevformer.layers import FFN  # noqa: E402

C, HEADS = 16, 4
ATOL = 1e-11


def filled(module, seed=0):
    """Weights that make every offset and weight matter; the fresh ones are all zero."""
    rng = np.random.RandomState(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            spread = 1.5 if "sampling_offsets.bias" in name else 0.4
            parameter.copy_(torch.from_numpy(rng.randn(*parameter.shape) * spread))
    return module, {name: p.detach().numpy() for name, p in module.named_parameters()}


def draw(*shape, seed=1, low=None):
    rng = np.random.RandomState(seed)
    return rng.uniform(low[0], low[1], shape) if low else rng.randn(*shape)


def tensor(x):
    return torch.from_numpy(np.asarray(x))


@pytest.mark.parametrize("exists", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("hw", [(3, 3), (2, 5)])
def test_temporal_self_attention(hw, exists):
    module, p = filled(TemporalSelfAttention(C, HEADS, 4, 0.1))
    Q = hw[0] * hw[1]
    query, history, initial = (draw(2, Q, C, seed=s) for s in (1, 2, 3))
    position, reference, shift = draw(Q, C, seed=4), draw(Q, 2, seed=5, low=(0, 1)), draw(2, 2, seed=6) * 0.2
    moved = reference + shift[:, None] * np.array(exists)[:, None, None]
    references = tensor(np.stack([moved, np.stack([reference] * 2)], 1).reshape(4, Q, 2))
    state = History(tensor(history), tensor(initial), exists, tensor(shift))
    ours = module(tensor(query), tensor(position), references, hw, state)
    for b in range(2):
        past = (history[b], initial[b]) if exists[b] else (None, None)
        twin = brute.temporal_self_attention(
            p, query[b], position, *past, reference, shift[b], hw, HEADS, points=4
        )
        assert np.allclose(ours[b].detach(), twin, atol=ATOL)


def visible(uv_BNQZ2, seen_BNQZ):
    return gather_visible(tensor(uv_BNQZ2), tensor(seen_BNQZ).any(-1))


@pytest.mark.parametrize(
    "shapes", [[(3, 4)], [(4, 6), (2, 3), (1, 2), (1, 1)]], ids=["one level", "four levels"]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0], ids=["none visible", "ragged", "all visible"])
def test_spatial_cross_attention(shapes, share):
    N, Q, Z = 3, 5, 4
    module, p = filled(SpatialCrossAttention(C, HEADS, len(shapes), 8, 0.1))
    query, features = draw(2, Q, C), draw(2, N, sum(h * w for h, w in shapes), C, seed=2)
    uv = draw(2, N, Q, Z, 2, seed=3, low=(-0.4, 1.4))  # heights outside the image are sampled too
    seen = draw(2, N, Q, Z, seed=4, low=(0, 1)) < share / 2 if share < 1 else np.ones((2, N, Q, Z), bool)
    ours = module(tensor(query), tensor(features), shapes, visible(uv, seen))
    for b in range(2):
        twin = brute.spatial_cross_attention(
            p, query[b], features[b], shapes, uv[b], seen[b], HEADS, points=8
        )
        assert np.allclose(ours[b].detach(), twin, atol=ATOL)


@pytest.mark.parametrize("reach", [(0, 1), (-3, 4)], ids=["inside", "far outside"])
def test_the_decoders_cross_attention(reach):
    module, p = filled(BEVCrossAttention(C, HEADS, 4, 0.1))
    query, position, bev = draw(2, 6, C), draw(2, 6, C, seed=2), draw(2, 12, C, seed=3)
    reference = draw(2, 6, 2, seed=4, low=reach)
    ours = module(tensor(query), tensor(position), tensor(bev), tensor(reference), (3, 4))
    for b in range(2):
        twin = brute.bev_cross_attention(p, query[b], position[b], bev[b], reference[b], (3, 4), HEADS, 4)
        assert np.allclose(ours[b].detach(), twin, atol=ATOL)


def test_self_attention_among_object_queries():
    module, p = filled(SelfAttention(C, HEADS, 0.1))
    query, position = draw(2, 5, C), draw(2, 5, C, seed=2)
    ours = module(tensor(query), tensor(position))
    for b in range(2):
        assert np.allclose(ours[b].detach(), brute.self_attention(p, query[b], position[b], HEADS), atol=ATOL)


def test_feed_forward():
    module, p = filled(FFN(C, 2 * C, 0.1))
    x = draw(4, C)
    assert np.allclose(module(tensor(x)).detach(), brute.feed_forward(p, x), atol=ATOL)


def part(p, prefix):
    return {name[len(prefix) + 1 :]: value for name, value in p.items() if name.startswith(prefix + ".")}


def test_an_encoder_layer_runs_its_parts_in_the_papers_order():
    hw, Q, N, Z, shapes = (2, 3), 6, 2, 4, [(2, 3)]
    width = TransformerConfig(embed_dims=C, num_heads=HEADS, ffn_dims=2 * C)
    module, p = filled(EncoderLayer(width, EncoderConfig(bev_h=2, bev_w=3), levels=1))
    query, position, reference = draw(1, Q, C), draw(Q, C, seed=2), draw(Q, 2, seed=3, low=(0, 1))
    features, uv = draw(1, N, 6, C, seed=4), draw(1, N, Q, Z, 2, seed=5, low=(0, 1))
    seen = draw(1, N, Q, Z, seed=6) > 0.8
    references = tensor(np.stack([reference, reference]))
    ours = module(
        tensor(query), tensor(position), references, hw, None, tensor(features), shapes, visible(uv, seen)
    )
    x = brute.temporal_self_attention(
        part(p, "attentions.0"), query[0], position, None, None, reference, None, hw, HEADS, 4
    )
    x = brute.layer_norm(p, "norms.0", x)
    x = brute.spatial_cross_attention(
        part(p, "attentions.1"), x, features[0], shapes, uv[0], seen[0], HEADS, points=8
    )
    x = brute.layer_norm(p, "norms.1", x)
    x = brute.layer_norm(p, "norms.2", brute.feed_forward(part(p, "ffns.0"), x))
    assert np.allclose(ours[0].detach(), x, atol=ATOL)


def twin_decoder_layer(p, query, position, bev, reference):
    x = brute.layer_norm(p, "norms.0", brute.self_attention(part(p, "attentions.0"), query, position, HEADS))
    x = brute.bev_cross_attention(
        part(p, "attentions.1"), x, position, bev, reference[:, :2], (3, 4), HEADS, 4
    )
    x = brute.layer_norm(p, "norms.1", x)
    return brute.layer_norm(p, "norms.2", brute.feed_forward(part(p, "ffns.0"), x))


def test_a_decoder_layer_runs_its_parts_in_order():
    width = TransformerConfig(embed_dims=C, num_heads=HEADS, ffn_dims=2 * C)
    module, p = filled(DecoderLayer(width, 4))
    query, position, bev = draw(1, 5, C), draw(1, 5, C, seed=2), draw(1, 12, C, seed=3)
    reference = draw(1, 5, 3, seed=4, low=(0, 1))
    ours = module(tensor(query), tensor(position), tensor(bev), tensor(reference[..., :2]), (3, 4))
    assert np.allclose(
        ours[0].detach(), twin_decoder_layer(p, query[0], position[0], bev[0], reference[0]), atol=ATOL
    )


def test_boxes_are_refined_layer_by_layer_around_the_detached_reference():
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def logit(x):
        return np.log(np.maximum(x, 1e-5) / np.maximum(1 - x, 1e-5))

    width = TransformerConfig(embed_dims=C, num_heads=HEADS, ffn_dims=2 * C)
    module, p = filled(Decoder(width, DecoderConfig(num_layers=2)))
    branches = torch.nn.ModuleList(filled(torch.nn.Linear(C, 10), seed=s)[0] for s in (7, 8))
    query, position, bev = draw(1, 5, C), draw(1, 5, C, seed=2), draw(1, 12, C, seed=3)
    reference = draw(1, 5, 3, seed=4, low=(0, 1))
    reference[0, 0] = 0, 1, 0.5  # the edges, where the logit is clamped
    _, codes = module(tensor(query), tensor(position), tensor(bev), tensor(reference), (3, 4), branches)
    x, ref = query[0], reference[0]
    for layer, branch in enumerate(branches):
        x = twin_decoder_layer(part(p, f"layers.{layer}"), x, position[0], bev[0], ref)
        raw = x @ branch.weight.detach().numpy().T + branch.bias.detach().numpy()
        ref = sigmoid(raw[:, [0, 1, 4]] + logit(ref))
        wanted = raw.copy()
        wanted[:, [0, 1, 4]] = ref
        assert np.allclose(codes[layer][0].detach(), wanted, atol=1e-9)
