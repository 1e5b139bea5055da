"""A run's settings against its recipe's: the preset of facts/presets.toml with the recipe's own changes.

What leaves the result as it is, or only rounds otherwise, is no difference. Whatever this table does not
know, because the model plane is newer, is left out.
"""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bevrepro import facts
from bevrepro.drive.recipes import Recipe

COLOURS = "colours of the images"
HISTORY = "history lost"
BATCH = "batch and learning rate"
OTHER = "another setting"
GROUPS = {
    "data.mean": COLOURS, "data.std": COLOURS, "data.to_rgb": COLOURS,
    "data.queue_length": HISTORY, "schedule.lr": BATCH,
}  # fmt: skip
# Identical or equal up to rounding; or judged otherwise: the batch as a whole, the length by `expect`.
SAME = (
    "name", "backbone.checkpoint_blocks", "backbone.dcn_backend", "schedule.samples_per_gpu",
    "schedule.world_size", "schedule.max_epochs", "schedule.max_steps", "ops.attention", "ops.deterministic",
    "ops.pixels", "ops.channels_last", "ops.folded_norms", "ops.cameras_at_once",
    "ops.adamw", "ops.gradients",
)  # fmt: skip


# What only a training has.
OF_TRAINING = ("schedule.", "data.queue_length", "data.photometric", "data.grid_mask", "transformer.dropout")


@dataclass(frozen=True)
class Difference:
    """`group`: which known mistake it is part of."""

    key: str
    here: Any
    recipe: Any
    group: str

    @property
    def said(self) -> str:
        return f"{self.key} = {json.dumps(self.here)} instead of {json.dumps(self.recipe)}"


def expected(recipe: Recipe) -> dict[str, Any]:
    """`data.queue_length` and so on; {} where no preset has its configuration's name."""
    row = next((row for row in facts.table("presets") if row["id"] == recipe.config), None)
    if row is None:
        return {}
    return {**dict(_leaves(json.loads(row["config"]))), **given(recipe.cfg_options)}


def given(options: Iterable[str]) -> dict[str, Any]:
    """`--cfg-options` as typed, `data.to_rgb=False`; what is no literal stays a word."""
    pairs = (str(option).partition("=") for option in options)
    return {key.strip(): _literal(text.strip()) for key, equals, text in pairs if equals}


def differences(recipe: Recipe, config: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Of a configuration as run.json has it: what the recipe says otherwise."""
    wanted = expected(recipe)
    return tuple(
        Difference(key, value, wanted[key], GROUPS.get(key, OTHER))
        for key, value in _leaves(config)
        if key in wanted and key not in SAME and not _equal(value, wanted[key])
    )


def at_test(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """Those that an evaluation has, too."""
    return tuple(each for each in found if not each.key.startswith(OF_TRAINING))


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _equal(one: Any, other: Any) -> bool:
    """1 and 1.0 are equal, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
