"""The text of `bevrepro eval --describe`."""

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 100  # columns of the explaining sentences


def description(result: dict[str, Any]) -> list[str]:
    """The model plane's `describe` as lines for a terminal."""
    count, memory = result["parameters"], result["memory"]
    return [
        f"{result['config']}: {count['total']:,} parameters ({count['trainable']:,} trainable, "
        f"{count['frozen']:,} frozen), {result['state_dict_keys']:,} keys in the state dict",
        "",
        f"{'part':<16}{'keys':>6}{'parameters':>14}{'trainable':>14}{'frozen':>12}",
        *(
            f"{row['part']:<16}{row['keys']:>6,}{row['total']:>14,}{row['trainable']:>14,}{row['frozen']:>12,}"
            for row in result["parts"]
        ),
        "",
        *_sizes(result["image"], result["bev"]),
        "",
        *_memory(memory),
    ]


def _sizes(image: dict[str, Any], bev: dict[str, Any]) -> list[str]:
    levels = ", ".join(_wh(hw) for hw in image["levels_hw"])
    return [
        f"images   {_wh(image['source_hw'])} x {image['scale']:g} = {_wh(image['scaled_hw'])}, "
        f"padded to {_wh(image['padded_hw'])}; features {levels} (width x height)",
        f"BEV      {bev['w']} x {bev['h']} cells of {bev['cell_x_m']:.3f} x {bev['cell_y_m']:.3f} m",
    ]


def _memory(memory: dict[str, Any]) -> list[str]:
    rows = [
        ("weights", memory["weights_gib"]),
        ("gradients", memory["gradients_gib"]),
        ("optimiser state", memory["optimizer_gib"]),
        ("saved for the backward pass", memory["saved_gib"]),
        *(("  " + part, size) for part, size in memory["saved_by_part_gib"].items()),
        ("together", memory["total_gib"]),
    ]
    samples = memory["samples"]
    return [
        f"memory of a training step with {samples} sample{'s' * (samples != 1)} per device, in GiB",
        *(f"{name:<46}{size:>9.3f}" for name, size in rows),
        *([f"DCNv2 operator: {memory['dcn_backend']}"] if memory["dcn_backend"] else []),
        *([f"Attention: {memory['attention_backend']}"] if memory.get("attention_backend") else []),
        *textwrap.wrap(memory["measured"], WIDTH),
        *textwrap.wrap(memory["not_included"], WIDTH),
    ]


def _wh(hw: Sequence[int]) -> str:
    """(height, width) as people write image sizes."""
    return f"{hw[1]}x{hw[0]}"
