"""Reads an mmcv-style Python configuration without executing it.

Evaluated are literals, names assigned earlier in the file, `dict(...)`, lists, tuples, arithmetic and
`**` unpacking; `_base_` files are merged below as mmcv does.  Anything else is refused with its line.
"""

import ast
import operator
from pathlib import Path
from typing import Any, Dict, List, Tuple

from .errors import ConfigError

MAX_FILE_BYTES = 1 << 20
MAX_ITEMS = 100_000

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Located(Dict[str, Any]):
    """A dict that remembers where each key was written: `where[key]` is "file:line"."""

    def __init__(self) -> None:
        super().__init__()
        self.where: Dict[str, str] = {}

    def put(self, key: str, value: Any, where: str) -> None:
        self[key] = value
        self.where[key] = where


class _Evaluator:
    """Evaluates one file; `names` holds what it has assigned so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = Located()

    def where(self, node: Any) -> str:
        return "%s:%d" % (self.path, node.lineno)

    def refuse(self, node: Any, what: str) -> ConfigError:
        return ConfigError(
            "%s: %s is not evaluated" % (self.where(node), what),
            "Configuration files are read, never executed: literals, names, dict(...), lists and arithmetic.",
            "Write the value out, or start from a preset with --cfg-options.",
        )

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            value = self.value(node.value)
            for target in node.targets:
                assert isinstance(target, ast.Name)
                self.names.put(target.id, value, self.where(node))
            return
        raise self.refuse(node, "a statement of kind %s" % type(node).__name__)

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.value(item) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            return self._mapping(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Not)):
            return self._guard(
                node,
                lambda: {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}[
                    type(node.op)
                ](self.value(node.operand)),
            )
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(node)
        raise self.refuse(node, "an expression of kind %s" % type(node).__name__)

    def _name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            raise ConfigError(
                "%s: the name %r is used before it is assigned" % (self.where(node), node.id),
                do="Assign it above; names of _base_ files are not visible in mmcv either.",
            )
        return self.names[node.id]

    def _guard(self, node: ast.expr, compute: Any) -> Any:
        try:
            return compute()
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError("%s: %s" % (self.where(node), error)) from error

    def _arithmetic(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Mult):  # [0] * 10**9 would fill the memory
            sizes = [len(x) for x in (left, right) if isinstance(x, (list, tuple, str))]
            counts = [x for x in (left, right) if isinstance(x, int)]
            if sizes and counts and sizes[0] * counts[0] > MAX_ITEMS:
                raise self.refuse(node, "a sequence of more than %d items" % MAX_ITEMS)
        return self._guard(node, lambda: _ARITHMETIC[type(node.op)](left, right))

    def _mapping(self, node: ast.Dict) -> Located:
        out = Located()
        for key, value in zip(node.keys, node.values):
            if key is None:
                self._unpack(out, value)
                continue
            name = self.value(key)
            if not isinstance(name, (str, int)):
                raise self.refuse(key, "a dict key of type %s" % type(name).__name__)
            out.put(name, self.value(value), self.where(value))  # type: ignore[arg-type]
        return out

    def _call(self, node: ast.Call) -> Any:
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict") or node.args:
            raise self.refuse(node, "a call")
        out = Located()
        for keyword in node.keywords:
            if keyword.arg is None:
                self._unpack(out, keyword.value)
            else:
                out.put(keyword.arg, self.value(keyword.value), self.where(keyword.value))
        return out

    def _unpack(self, out: Located, node: ast.expr) -> None:
        other = self.value(node)
        if not isinstance(other, Located):
            raise self.refuse(node, "unpacking something that is not a dict")
        for key, value in other.items():
            out.put(key, value, other.where[key])


def merge(base: Located, child: Located) -> Located:
    """mmcv's rule: dicts merge key by key, everything else replaces; `_delete_=True` starts afresh."""
    out = Located()
    for source in (base, child):
        for key, value in source.items():
            old = out.get(key)
            if source is child and isinstance(value, Located) and isinstance(old, Located):
                if value.get("_delete_"):
                    value = _without(value, "_delete_")
                else:
                    value = merge(old, value)
            out.put(key, value, source.where[key])
    return out


def _without(tree: Located, name: str) -> Located:
    out = Located()
    for key, value in tree.items():
        if key != name:
            out.put(key, value, tree.where[key])
    return out


def _parse(path: Path) -> List[ast.stmt]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError("%s is larger than 1 MiB" % path, "A configuration has some kilobytes.")
        return ast.parse(path.read_bytes(), str(path)).body
    except OSError as error:
        raise ConfigError(
            "cannot read %s: %s" % (path, error.strerror),
            do="Check the path; _base_ paths are relative to the file that names them.",
        ) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError("%s is not a Python configuration: %s" % (path, error)) from error


def read_upstream(path: Path, _above: Tuple[Path, ...] = ()) -> Located:
    """All names the file and its `_base_` files assign.  Raises ConfigError naming file and line."""
    path = Path(path).resolve()
    if path in _above:
        raise ConfigError("%s is its own _base_" % path)
    evaluator = _Evaluator(path)
    try:
        for node in _parse(path):
            evaluator.statement(node)
    except RecursionError as error:
        raise ConfigError("%s is nested too deeply" % path) from error
    bases = evaluator.names.get("_base_", [])
    merged = Located()
    for base in list(bases) if isinstance(bases, (list, tuple)) else [bases]:
        if not isinstance(base, str):
            raise ConfigError(
                "%s: _base_ holds something that is not a path" % evaluator.names.where["_base_"]
            )
        merged = merge(merged, read_upstream(path.parent / base, _above + (path,)))
    return merge(merged, _without(evaluator.names, "_base_"))
