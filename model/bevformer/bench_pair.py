"""Two models that share every parameter, ours and a plain one, and the steps that benchmarks time.

The plain one's encoder is written as upstream writes it (`bench_plain`); everything else is shared code.
"""

import copy
from typing import Any, Callable, Dict

import torch
from torch import Tensor, nn

from .bench_plain import plain_twin
from .detector import BEVFormer
from .nominal import ImageSize, nominal_frame, nominal_sample

Step = Callable[[], Dict[str, Tensor]]  # one step; what came out, by name


def with_spread_sampling(model: BEVFormer) -> BEVFormer:
    """Fresh sampling layers are all zero and would hide differences: give them small weights."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def plain_copy(model: BEVFormer) -> BEVFormer:
    """The plain formulation as a second model that shares every parameter and buffer."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    plain_twin(twin.pts_bbox_head.transformer.encoder)
    return twin.train(model.training)


def inference_step(model: BEVFormer, size: ImageSize) -> Step:
    """One frame of a video with history; what comes out are the head's outputs before decoding."""
    _, memory = model.step(nominal_frame(size, 0))
    frame = nominal_frame(size, 1)
    seen: Dict[str, Any] = {}
    model.pts_bbox_head.register_forward_hook(lambda head, inputs, out: seen.update(out=out))

    def step() -> Dict[str, Tensor]:
        model.step(frame, memory)
        out = seen["out"]
        return {"bev": out.bev_BQC, "logits": out.logits_LBOK[-1], "codes": out.codes_LBOD[-1]}

    return step


def training_step(model: BEVFormer, size: ImageSize) -> Step:
    """History, forward, losses and backward of one queue, without the optimiser."""
    sample = nominal_sample(model.config, size)
    offsets = model.pts_bbox_head.transformer.encoder.layers[0].attentions[1].deformable_attention

    def step() -> Dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        loss = torch.stack(list(model.loss(sample).values())).sum()
        loss.backward()
        weight = offsets.sampling_offsets.weight.grad
        return {"loss": loss.detach(), "gradient": weight.clone()}

    return step


def difference(ours: Dict[str, Tensor], plain: Dict[str, Tensor]) -> Dict[str, float]:
    """The largest distance between two numbers of the same place, by output."""
    return {name: float((ours[name] - plain[name]).abs().max()) for name in ours}
