"""Who may import whom: the rooms of DESIGN, the two planes, and the oldest Python of each."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import what stands below it and itself, never its neighbours or what stands above.
FLOORS = {"cli": 4, "drive": 3, "doctor": 2, "env": 2, "data": 2, "probe": 1, "core": 0, "facts": 0}
MODEL_SIDE = set(
    "torch torchvision numpy scipy matplotlib cv2 PIL mmcv mmdet mmdet3d mmengine nuscenes pyquaternion "
    "bevformer".split()
)
CONTROL_PLANE = sorted((ROOT / "bevrepro").rglob("*.py"))
MODEL_PLANE = sorted((ROOT / "model").rglob("*.py"))
CHILD = ROOT / "bevrepro/probe/_child.py"  # runs in the target interpreter, as a script


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Absolute names of everything imported anywhere in the file, functions included."""
    return frozenset(names(path))


def names(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at():
    assert len(CONTROL_PLANE) > 20 and len(MODEL_PLANE) > 10


@pytest.mark.parametrize("path", CONTROL_PLANE, ids=name_of)
def test_a_room_imports_only_what_stands_below_it(path):
    parts = path.relative_to(ROOT / "bevrepro").parts
    if len(parts) == 1:
        return  # the package itself and __main__
    room = parts[0]
    for name in imports(path):
        pieces = name.split(".")
        other = pieces[1] if pieces[0] == "bevrepro" and len(pieces) > 1 else None
        if other in FLOORS and other != room:
            assert FLOORS[other] < FLOORS[room], f"{room} must not import {name}"


def test_every_room_has_its_floor():
    rooms = {path.name for path in (ROOT / "bevrepro").iterdir() if any(path.glob("*.py"))}
    assert rooms <= set(FLOORS)


@pytest.mark.parametrize("path", [path for path in CONTROL_PLANE if path != CHILD], ids=name_of)
def test_the_control_plane_never_imports_the_model_side(path):
    found = {name.split(".")[0] for name in imports(path)}
    assert not found & MODEL_SIDE
    assert not found & {"click", "ratarmount", "ratarmountcore"}


@pytest.mark.parametrize(
    "path", [path for path in CONTROL_PLANE if path.parts[-2:] != ("core", "proc.py")], ids=name_of
)
def test_other_programs_are_started_in_one_file_only(path):
    assert "subprocess" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODEL_PLANE, ids=name_of)
def test_the_model_plane_never_imports_the_control_plane(path):
    assert "bevrepro" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODEL_PLANE, ids=name_of)
def test_openmmlab_is_touched_in_one_room_only(path):
    if path.parent != ROOT / "model/bevformer/mm":
        assert not {name.split(".")[0] for name in imports(path)} & {"mmcv", "mmdet", "mmdet3d", "mmengine"}


@pytest.mark.parametrize("path", [*MODEL_PLANE, CHILD], ids=name_of)
def test_the_model_plane_is_python_3_8(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert not list(newer_annotations(tree))


@pytest.mark.parametrize("path", CONTROL_PLANE, ids=name_of)
def test_the_control_plane_is_python_3_10(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def newer_annotations(tree: ast.Module) -> Iterator[str]:
    """Annotations that Python 3.8 would stumble over when it evaluates them: `list[int]`, `int | None`."""
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            annotation = getattr(node, field, None)
            for part in ast.walk(annotation) if annotation is not None else ():
                union = isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr)
                builtin = isinstance(part, ast.Subscript) and getattr(part.value, "id", "") in (
                    "list", "dict", "tuple", "set", "frozenset", "type",
                )  # fmt: skip
                if union or builtin:
                    yield f"line {part.lineno}: {ast.unparse(part)}"


def test_the_annotation_check_sees_what_it_should():
    new = "def f(a: list[int], b: 'str | None', c: int | None) -> dict[str, int]: x: tuple[int] = a"
    assert len(list(newer_annotations(ast.parse(new)))) == 4
    assert not list(newer_annotations(ast.parse("def f(a: List[int]) -> Optional[int]: ...")))


def test_this_file_runs_where_the_syntax_is_known():
    assert sys.version_info >= (3, 10)
