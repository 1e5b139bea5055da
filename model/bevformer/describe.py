"""`describe`: what a configuration is, before anything is downloaded or trained.

    describe CONFIG [--cfg-options head.num_query=300 ...]

Parameters and keys are counted on the model itself; the memory of a training step is measured, not
guessed: the forward pass up to the BEV map runs on the meta device, decoder and losses run on the CPU
(their matching needs numbers), and whatever autograd saves for the backward pass is added up.
"""

import argparse
import copy
import functools
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .attention import Attention
from .config import Config, override
from .detector import BEVFormer, build_model
from .losses import detection_losses
from .nominal import ImageSize, image_size, nominal_meta, nominal_truth
from .ops import backends as attention_backends
from .ops.dcn_backends import choose
from .ops.dcn_layer import ModulatedDeformConv
from .saved import SavedBytes
from .talk import Talk

GIB = float(1 << 30)
PARTS = (  # first prefix that fits
    ("img_backbone.", "backbone"),
    ("img_neck.", "neck"),
    ("pts_bbox_head.transformer.encoder.", "encoder"),
    ("pts_bbox_head.transformer.decoder.", "decoder"),
    ("pts_bbox_head.cls_branches.", "class branches"),
    ("pts_bbox_head.reg_branches.", "box branches"),
    ("pts_bbox_head.transformer.can_bus_mlp.", "CAN MLP"),
    ("pts_bbox_head.", "embeddings"),
)
OPTIMIZER_TENSORS = 2  # AdamW: first and second moment
MEASURED = (
    "One training step in float32: the tensors that autograd saves for the backward pass, each storage"
    " once, parameters not counted; measured with torch.autograd.graph.saved_tensors_hooks, up to the BEV"
    " map on the meta device, decoder and losses on the CPU, with the cameras of a nuScenes car."
)
NOT_INCLUDED = (
    "Not included: what the forward and backward pass need for a moment (the history frames among it),"
    " convolution workspace, the allocator's fragmentation, the CUDA context."
    " On a GPU the decoder's attention and the dropout masks take less than the CPU's kernels measured here."
)


def main(argv: Sequence[str], talk: Talk) -> int:
    from .evaluate import read_config

    parser = argparse.ArgumentParser(prog="describe", description="Parameters, keys, sizes and memory.")
    parser.add_argument("config", help="a preset, a work folder's config.json, or an upstream .py file")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    talk.result(**describe(override(read_config(args.config, talk), args.cfg_options)))
    return 0


def describe(config: Config) -> Dict[str, Any]:
    """Everything as JSON; sizes in GiB of 2**30 bytes."""
    model = build_model(config).train()
    size = image_size(config)
    levels_hw, saved = measure_saved(config, model, size)
    grid, pc_range_m = config.encoder, config.head.pc_range_m
    return {
        "config": config.name,
        "parameters": count(model.parameters()),
        "state_dict_keys": len(model.state_dict()),
        "parts": parts_table(model),
        "image": {
            "source_hw": size.source_hw,
            "scale": config.data.scale,
            "scaled_hw": size.scaled_hw,
            "padded_hw": size.padded_hw,
            "levels_hw": levels_hw,
        },
        "bev": {
            "h": grid.bev_h,
            "w": grid.bev_w,
            "cell_y_m": (pc_range_m[4] - pc_range_m[1]) / grid.bev_h,
            "cell_x_m": (pc_range_m[3] - pc_range_m[0]) / grid.bev_w,
        },
        "memory": memory_table(model, saved, config.schedule.samples_per_gpu),
    }


def count(parameters: Any) -> Dict[str, int]:
    both = [0, 0]
    for parameter in parameters:
        both[parameter.requires_grad] += parameter.numel()
    return {"total": sum(both), "trainable": both[True], "frozen": both[False]}


def part_of(key: str) -> str:
    return next(part for prefix, part in PARTS if key.startswith(prefix))


def parts_table(model: nn.Module) -> List[Dict[str, Any]]:
    """Per part its state-dict keys and parameters; the sums are those of the whole model."""
    keys: Dict[str, int] = {part: 0 for _, part in PARTS}
    for key in model.state_dict():
        keys[part_of(key)] += 1
    members: Dict[str, List[Tensor]] = {part: [] for part in keys}
    for key, parameter in model.named_parameters():
        members[part_of(key)].append(parameter)
    return [dict(count(members[part]), part=part, keys=keys[part]) for part in keys]


def memory_table(model: nn.Module, saved: Dict[str, int], batch: int) -> Dict[str, Any]:
    """GiB of one training step that stay allocated together when the backward pass begins."""
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    rows = {
        "weights_gib": weights / GIB,
        "gradients_gib": gradients / GIB,
        "optimizer_gib": OPTIMIZER_TENSORS * gradients / GIB,
        "saved_gib": sum(saved.values()) / GIB,
    }
    return dict(
        rows,
        total_gib=sum(rows.values()),
        dcn_backend=dcn_backend(model),
        attention_backend=attention_backend(model),
        saved_by_part_gib={label: size / GIB for label, size in saved.items()},
        samples=batch,
        measured=MEASURED,
        not_included=NOT_INCLUDED,
    )


def measure_saved(
    config: Config, model: BEVFormer, size: ImageSize
) -> Tuple[List[Tuple[int, int]], Dict[str, int]]:
    """(height, width) of every feature level, and bytes saved for backward by part."""
    batch, grid = config.schedule.samples_per_gpu, config.encoder
    ghost = copy.deepcopy(model).to("meta")
    saved = SavedBytes(model, ghost)
    watch_parts(saved, model)
    watch_parts(saved, ghost)
    attention = attention_backend(model)
    place_dcn(ghost, dcn_backend(model))
    place_attention(ghost, attention)
    place_attention(model, attention)
    metas = [nominal_meta(size)] * batch
    truths = [nominal_truth(classes=config.head.num_classes)] * batch
    images = torch.empty(batch, config.transformer.num_cams, 3, *size.padded_hw, device="meta")
    bev_shape = (batch, grid.bev_h * grid.bev_w, config.transformer.embed_dims)
    with saved.counting("embeddings"):
        levels = ghost.features(images)
        ghost.pts_bbox_head.bev(levels, metas, torch.empty(bev_shape, device="meta"))
    with saved.counting("decoder: feed-forward, norms, refinement"):
        outputs = model.pts_bbox_head.outputs(torch.zeros(bev_shape, requires_grad=True))
    with saved.counting("losses"):
        losses = detection_losses(outputs.logits_LBOK, outputs.codes_LBOD, truths, config.head)
    del losses
    saved.unwatch()
    return [(level.shape[-2], level.shape[-1]) for level in levels], saved.by_label


def dcn_backend(model: nn.Module) -> Optional[str]:
    """The operator that DCNv2 layers would run on this machine's device; None without such layers."""
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    backends = {m.backend for m in model.modules() if isinstance(m, ModulatedDeformConv)}
    return choose(backends.pop(), device_type)[0] if backends else None


def attention_backend(model: nn.Module) -> str:
    """What the attentions are counted as: what would run on this machine's GPU; without one, what every other
    machine has as well, grid_sample, unless the configuration names another."""
    names = {module.backend for module in model.modules() if isinstance(module, Attention)}
    name = names.pop() if names else "reference"
    if torch.cuda.is_available():
        return attention_backends.choose(name, "cuda").name
    return "reference" if name == "auto" else name


def place_attention(model: nn.Module, backend: str) -> None:
    """Let the attentions save what `backend` saves: on the meta device, or on a CPU that may lack it."""
    for module in model.modules():
        if isinstance(module, Attention):
            ghost = next(module.parameters()).is_meta
            module.backend = backend if ghost or backend == "reference" else "auto"


class _InputsSaved(torch.autograd.Function):
    """The shapes and saved tensors of mmcv's and torchvision's compiled DCNv2, which keep their inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:  # type: ignore
        ctx.save_for_backward(x, offset, mask, weight)
        return x.new_empty(len(x), len(weight), mask.shape[-2], mask.shape[-1])


def _fused_forward(layer: ModulatedDeformConv, x_BCHW: Tensor) -> Tensor:
    both = layer.conv_offset(x_BCHW)
    out: Tensor = _InputsSaved.apply(x_BCHW, both[:, :18], both[:, 18:].sigmoid(), layer.weight)
    return out


def place_dcn(ghost: nn.Module, backend: Optional[str]) -> None:
    """Let DCNv2 layers on the meta device save what `backend` saves; compiled operators cannot run there."""
    for layer in ghost.modules():
        if isinstance(layer, ModulatedDeformConv):
            layer.backend = "reference"
            if backend != "reference":
                layer.forward = functools.partial(_fused_forward, layer)  # type: ignore[method-assign]


def watch_parts(saved: SavedBytes, model: BEVFormer) -> None:
    """Label everything worth a row of its own."""
    head = model.pts_bbox_head
    saved.watch(model.img_backbone, "backbone")
    saved.watch(model.img_neck, "neck")
    for layer in head.transformer.encoder.layers:
        saved.watch(layer, "encoder: feed-forward, norms")
        saved.watch(layer.attentions[0], "encoder: temporal self-attention")
        saved.watch(layer.attentions[1], "encoder: spatial cross-attention")
    for layer in head.transformer.decoder.layers:
        saved.watch(layer, "decoder: feed-forward, norms, refinement")
        saved.watch(layer.attentions[0], "decoder: self-attention")
        saved.watch(layer.attentions[1], "decoder: cross-attention")
    for branch in [*head.cls_branches, *head.reg_branches]:
        saved.watch(branch, "branches")
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            saved.watch(module, "dropout masks")
