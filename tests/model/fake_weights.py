"""Files in the layouts that people have, with real names and shapes and hardly any bytes.

Every tensor is one number expanded to its shape; torch.save keeps that, so a ResNet-101 takes kilobytes.
"""

import torch

from bevformer.key_tables import preset_tables


def expanded(shapes, value=0.5):
    """A state dict of these shapes that takes no memory."""
    return {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.tensor([value]).expand(shape)
        for key, shape in shapes.items()
    }


def detector(name, value=0.5):
    """A state dict of a preset."""
    return expanded(preset_tables()[name], value)


def backbone_shapes(name):
    """Keys below `img_backbone.` of a preset: what torchvision and mmdet call them."""
    table = preset_tables()[name]
    return {key[13:]: shape for key, shape in table.items() if key.startswith("img_backbone.")}


def imagenet(name="bevformer_tiny", value=0.5):
    """As torchvision publishes a ResNet: the backbone's own keys, and a classifier."""
    state = expanded(backbone_shapes(name), value)
    state.update(expanded({"fc.weight": (1000, 2048), "fc.bias": (1000,)}))
    return state


def fcos3d(prefix="img_", value=0.5):
    """FCOS3D with ResNet-101-DCN: `img_` as in r101_dcn_fcos3d_pretrain, nothing as mmdet3d writes it."""
    state = {
        prefix + "backbone." + key: v for key, v in expanded(backbone_shapes("bevformer_base"), value).items()
    }
    neck = {"lateral_convs.%d.conv.%s" % (i, w): s for i, c in enumerate((512, 1024, 2048))
            for w, s in (("weight", (256, c, 1, 1)), ("bias", (256,)))}  # fmt: skip
    neck.update({"fpn_convs.%d.conv.%s" % (i, w): s for i in range(5)
                 for w, s in (("weight", (256, 256, 3, 3)), ("bias", (256,)))})  # fmt: skip
    state.update({prefix + "neck." + key: tensor for key, tensor in expanded(neck, value).items()})
    state.update(
        expanded(
            {
                "bbox_head.cls_convs.0.conv.weight": (256, 256, 3, 3),
                "bbox_head.conv_dir_cls.weight": (2, 256, 1, 1),
            }
        )
    )
    return state


def bevformer_v2():
    """Base without the CAN bus, with the head of its perspective supervision."""
    state = {key: v for key, v in detector("bevformer_base").items() if "can_bus_mlp" not in key}
    state.update(expanded({"fcos3d_bbox_head.fcos2d_head.cls_tower.0.weight": (256, 256, 3, 3)}))
    return state


def with_ema_twin(state):
    """As mmcv's EMAHook saves: `ema_` and the key with underscores, beside the weights."""
    return {**state, **{"ema_" + key.replace(".", "_"): value for key, value in state.items()}}


def upstream_file(state, year=2022, **more):
    """The dict that mmcv 1.4 writes."""
    import numpy as np

    meta = {
        "env_info": "sys.platform: linux", "seed": np.int64(0), "exp_name": "bevformer_tiny.py",
        "mmcv_version": "1.4.0", "time": "Sat Mar 26 06:14:06 %d" % year, "epoch": 24, "iter": 84408,
        "config": "model = dict(type='BEVFormer')\n", "CLASSES": ("car", "truck"), "PALETTE": None,
        "hook_msgs": {"best_score": np.float64(0.25)},
    }  # fmt: skip
    return {
        "meta": meta,
        "state_dict": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 2e-4}]},
        **more,
    }
