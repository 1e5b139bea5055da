"""The base model in small: every kind of layer it has, in seconds on a CPU."""

from bevformer.config import override, preset

OPTIONS = [  # DCNv2, four levels, history, dropout, GridMask
    "backbone.depth=50", "backbone.frozen_stages=1", "backbone.dcn_backend=reference", "data.scale=0.06",
    "data.queue_length=2", "transformer.embed_dims=32", "transformer.ffn_dims=64", "transformer.num_heads=4",
    "encoder.bev_h=10", "encoder.bev_w=12", "encoder.num_layers=2", "decoder.num_layers=2",
    "head.num_query=12", "head.max_per_img=12",
]  # fmt: skip


def small(name="bevformer_base"):
    return override(preset(name), OPTIONS)
