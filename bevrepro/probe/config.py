"""A configuration as far as it is literal: an upstream .py, a preset's name, or a work folder's config.json.

Nothing is executed: what is no literal, no name assigned above and no dict(...) stays unknown.
"""

import ast
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro import facts
from bevrepro.probe.paths import Place, probe_place
from bevrepro.probe.tree import Tree, probe_tree

MAX_B = 1 << 20
DEEPEST = 8  # _base_ below _base_


@dataclass(frozen=True)
class Config:
    """What the checks compare; None where the file does not say it literally."""

    place: Place
    broken: str | None = None
    preset: str | None = None
    model: str | None = None  # "BEVFormer"
    lr: float | None = None
    samples_per_gpu: int | None = None
    test_samples_per_gpu: int | None = None
    queue_length: int | None = None
    bev_h: int | None = None
    video: bool | None = None
    shuffler: str | None = None
    nonshuffler: str | None = None
    live_batch_norm: bool | None = None
    load_from: str | None = None
    load_from_exists: bool | None = None
    data_root: str | None = None
    data_root_exists: bool | None = None
    tree: Tree | None = None  # the source tree around an upstream .py


class Unknown:
    """Stands for what is not literal."""


class _Broken(Exception):
    """The file is no configuration; the text says why."""


def probe_config(path: Path, deep: bool = False) -> Config:
    """Never raises for what the file holds."""
    presets = {row["id"] for row in facts.table("keys")}
    if path.name in presets and not os.path.exists(path):
        return Config(Place(str(path), "file"), preset=path.name)
    file = path / "config.json" if os.path.isdir(path) else path
    place = probe_place(file)
    if place.kind != "file":
        return Config(place)
    try:
        if file.suffix == ".json":
            return _from_json(place, json.loads(file.read_bytes()))
        return _from_python(place, read_python(file), file.parent)
    except _Broken as error:
        return Config(place, broken=str(error))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        return Config(place, broken=f"{type(error).__name__}: {error}"[:200])


def read_python(path: Path, depth: int = 0) -> dict[str, Any]:
    """Names to values, `_base_` files below; raises _Broken, OSError, SyntaxError, ValueError."""
    if depth > DEEPEST:
        raise _Broken("its _base_ files go in a circle")
    if path.stat().st_size > MAX_B:
        raise _Broken("it is larger than 1 MiB: no configuration")
    names: dict[str, Any] = {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names[target.id] = _value(node.value, names)
    bases = names.pop("_base_", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases if isinstance(bases, (list, tuple)) else []:
        if isinstance(base, str) and os.path.isfile(
            path.parent / base
        ):  # mmdet3d's own bases may be elsewhere
            merged = _merge(merged, read_python(path.parent / base, depth + 1))
    return _merge(merged, names)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """mmcv's rule: dicts merge key by key, everything else replaces; `_delete_` starts afresh."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not value.get("_delete_"):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, Unknown())
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each, names) for each in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, names)
        return -inner if isinstance(inner, (int, float)) else Unknown()
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {
            _value(key, names): _value(value, names) for key, value in pairs if isinstance(key, ast.Constant)
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {each.arg: _value(each.value, names) for each in node.keywords if each.arg}
    return Unknown()


def _from_python(place: Place, names: dict[str, Any], folder: Path) -> Config:
    model = names.get("model")
    if not isinstance(model, dict) and "data" not in names:
        raise _Broken("it assigns neither model nor data: no mmdet3d configuration")
    head = "model.pts_bbox_head"
    load_from, data_root = _get(names, "load_from", str), _get(names, "data_root", str)
    return Config(
        place,
        model=_get(names, "model.type", str),
        lr=_get(names, "optimizer.lr", float),
        samples_per_gpu=_get(names, "data.samples_per_gpu", int),
        test_samples_per_gpu=max(_tests(names), default=None),
        queue_length=_get(names, "data.train.queue_length", int) or _get(names, "queue_length", int),
        bev_h=_get(names, f"{head}.bev_h", int),
        video=_get(names, "model.video_test_mode", bool),
        shuffler=_get(names, "data.shuffler_sampler.type", str),
        nonshuffler=_get(names, "data.nonshuffler_sampler.type", str),
        live_batch_norm=_get(names, "model.img_backbone.norm_cfg.requires_grad", bool),
        load_from=load_from,
        load_from_exists=_exists(load_from, folder),
        data_root=data_root,
        data_root_exists=_exists(data_root, folder),
        tree=probe_tree(folder / "config.py"),
    )


def _tests(names: dict[str, Any]) -> Iterator[int]:
    for split in ("val", "test"):
        count = _get(names, f"data.{split}.samples_per_gpu", int)
        if count is not None:
            yield count


def _exists(name: str | None, folder: Path) -> bool | None:
    """Seen from the working folder, as upstream's tools do, or from the file's own."""
    if name is None or "://" in name:
        return None
    return os.path.exists(name) or os.path.exists(folder / name)


def _from_json(place: Place, content: Any) -> Config:
    if not isinstance(content, dict):
        raise _Broken("it is JSON, but no configuration")
    return Config(
        place,
        preset=_get(content, "name", str),
        lr=_get(content, "schedule.lr", float),
        samples_per_gpu=_get(content, "schedule.samples_per_gpu", int),
        queue_length=_get(content, "data.queue_length", int),
        bev_h=_get(content, "encoder.bev_h", int),
    )


def _get(tree: Any, dotted: str, kind: type) -> Any:
    """The value of that type at `a.b.c`, else None."""
    for name in dotted.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    if kind is float and type(tree) is int:
        return float(tree)
    return tree if type(tree) is kind else None
