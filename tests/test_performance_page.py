"""docs/performance.md: its tables are those of benchmarks/, and it names every lever there is."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import performance_page as page

ROOT = Path(__file__).parents[1]
TEXT = page.PAGE.read_text()
HOST = {"gpu": None, "cpu": "AMD EPYC", "threads": 2}


def document(kind, rows, ratios=(), **more):
    common = {
        "kind": kind,
        "host": HOST,
        "versions": {"torch": "2.13.0"},
        "time": "2026-11-21T22:00:00+00:00",
    }
    command = f"python -m bevformer.bench {kind} --preset tiny --out x.json"
    return dict(common, command=command, rows=rows, ratios=list(ratios), load_1m_before=0.5, **more)


def row(case, what, who, median, unit="s", **more):
    return dict(case=case, what=what, who=who, median=median, unit=unit, **more)


def made(folder, name, content, table):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return page.written(f"before\n<!-- table {table} -->\nold\n<!-- end -->\nafter\n", folder)


def test_the_tables_are_those_of_the_committed_files():
    assert page.written(TEXT, page.FOLDER) == TEXT, "run `make docs`"
    assert page.main(["--check"]) == 0


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'nonsense'"):
        page.written("<!-- table nonsense -->\n<!-- end -->", page.FOLDER)


@pytest.mark.parametrize(
    "table",
    ["ops a.json", "steps a.json", "loader a.json", "memory a.json", "levers a.json", "scores a.json", "gpu"],
)
def test_what_was_not_measured_says_how(table, tmp_path):
    text = page.written(f"<!-- table {table} -->\n<!-- end -->", tmp_path)
    assert "Not measured yet: `" in text


def test_a_score_outside_of_the_band_is_told(tmp_path):
    scored = {"words": ["--cfg-options", "ops.attention=cpp"], "map": 0.01, "nds": 0.2, "inside": False}
    content = {"band": {"map": [0.02, 0.3], "nds": [0.1, 0.3]}, "rows": [scored]}
    text = made(tmp_path, "m.json", content, "scores m.json")
    assert "| the band | 0.020 to 0.300 | 0.100 to 0.300 |  |" in text
    assert "| `ops.attention=cpp` | 0.0100 | 0.2000 | **no** |" in text


def test_operators_show_times_memory_error_and_a_missed_goal(tmp_path):
    rows = [
        row("tiny spatial", "forward", "grid_sample", 0.06, max_error=1e-7, right=True),
        row("tiny spatial", "forward", "cpp", 0.01, max_error=3e-7, right=True),
        row("tiny spatial", "training", "cpp", 1.5, max_error=2e-1, right=False, saved_mb=0.0),
    ]
    ratios = [
        dict(
            case="tiny spatial", what="forward", who="cpp", against="grid_sample", times=6, goal=7, met=False
        )
    ]
    text = made(tmp_path, "o.json", document("ops", rows, ratios, absent={"mmcv": "not there"}), "ops o.json")
    assert "| tiny spatial, cpp | 10 ms | 1.5 s | 6 (goal 7, **missed**) |  | 0 MB | 0.2 **wrong** |" in text
    assert (
        "AMD EPYC, 2 threads, torch 2.13.0, 2026-11-21, load before 0.5: `python -m bevformer.bench ops"
        in text
    )
    assert "--out" not in text and "Not there when it was measured: mmcv." in text
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text


def test_steps_show_peak_and_levers(tmp_path):
    rows = [
        row("tiny", "s", "plain", 4.0),
        row("tiny", "s", "fast", 2.0, peak_gb=1.25, levers=["bf16", "cpp"]),
    ]
    ratios = [
        dict(case="tiny", what="s", who="fast", against="plain", times=2.0, goal=1.5, met=True),
        dict(case="tiny", what="peak memory", who="fast", against="plain", times=3.0),
    ]
    text = made(tmp_path, "s.json", document("step", rows, ratios), "steps s.json step")
    assert "| tiny, fast | 2 s | 2 (goal 1.5) | 1.25 GB, 3 times less | bf16, cpp |" in text


def test_steps_show_how_many_operators_they_are_made_of(tmp_path):
    what = "torch operators of a training step"
    rows = [row("tiny", "s", who, 4.0, peak_gb=1.0) for who in ("plain", "fast", "lean")]
    rows += [row("tiny", what, who, n, "operators") for who, n in (("plain", 2606), ("fast", 903))]
    ratios = [dict(case="tiny", what=what, who="fast", against="plain", times=2.886)]
    text = made(tmp_path, "s.json", document("step", rows, ratios), "steps s.json step")
    assert "|  | time | times plain | peak | torch operators | levers |" in text
    assert "| tiny, plain | 4 s |  | 1 GB | 2606 | none |" in text
    assert "| tiny, fast | 4 s |  | 1 GB | 903, 2.89 times fewer | none |" in text
    assert "| tiny, lean | 4 s |  | 1 GB |  | none |" in text


def test_the_loader_shows_times_beside_numbers(tmp_path):
    rows = [row("base", "bytes per sample", who, mb, "MB") for who, mb in (("float", 428), ("uint8", 104))]
    ratios = [dict(case="base", what="bytes per sample", who="uint8", against="float", times=4.1)]
    text = made(tmp_path, "l.json", document("loader", rows, ratios), "loader l.json")
    assert "| base, uint8 | 104 MB, 4.1 times less |" in text and "| base, float | 428 MB |" in text


def test_a_gpus_goals_are_met_missed_or_not_measured(tmp_path):
    goals = [
        dict(what="a", measured=9.0, goal=8.0, met=True, less_is_better=False),
        dict(what="b", measured=9.0, goal=7.5, met=False, less_is_better=True),
        dict(what="c", measured=None, goal=2.5, met=None, less_is_better=False),
    ]
    machine = {"gpu": "NVIDIA H200", "torch": "2.11.0", "time": "2026-11-21T22:00:00+00:00"}
    result = {"machine": machine, "goals": goals, "correct": True, "left_out": ["loader"]}
    text = made(tmp_path, "gpu/h200.json", result, "gpu")
    assert "**NVIDIA H200, torch 2.11.0, 2026-11-21**" in text and "| a | 9 | >= 8 | yes |" in text
    assert "| b | 9 | <= 7.5 | no |" in text and "| c | not measured |  |  |" in text
    assert "The numbers agree with float64. Left out: loader." in text


def test_the_program_reads_json_and_imports_no_other_package():
    source = (ROOT / "benchmarks" / "performance_page.py").read_text()
    imported = re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) <= {"json", "re", "sys", "pathlib", "typing", "collections"}


def test_every_lever_and_every_class_of_fidelity_is_named():
    from dataclasses import fields

    from bevformer.config import OpsConfig
    from bevformer.ledger import CHANGES, IDENTICAL, ROUNDING, STATISTICS

    for field in fields(OpsConfig):
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `ops.{field.name}` |"))
        assert str(field.default) in line.split("|")[2]
        assert any(effect in line for effect in (IDENTICAL, ROUNDING, STATISTICS, CHANGES))
    assert "*same statistics*" in TEXT and "*changes the\nresult*" in TEXT


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_files_that_are_linked_exist(path):
    assert (ROOT / "docs" / path).resolve().exists()
