"""What a wrong metric says: fingerprints of known mistakes, from facts/metrics.toml."""

from collections.abc import Iterator
from pathlib import Path

from bevrepro import facts
from bevrepro.core.finding import Finding
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe.metrics import Metrics, probe_metrics


def _told(metrics: Metrics) -> str:
    errors = "".join(f", {name} {value:.3f}" for name, value in (metrics.errors or {}).items())
    known = (
        (name, value) for name, value in (("mAP", metrics.map), ("NDS", metrics.nds)) if value is not None
    )
    return ", ".join(f"{name} {value:.4f}" for name, value in known) + errors


def _error(metrics: Metrics, name: str) -> float | None:
    return (metrics.errors or {}).get(name)


def _broken(metrics: Metrics) -> Iterator[Verdict]:
    if metrics.broken:
        yield fail(f"{metrics.place.path}: {metrics.broken}",
                   "Name a metrics_summary.json, its folder, or a log of an evaluation.")  # fmt: skip


def _convention(metrics: Metrics) -> Iterator[Verdict]:
    row = facts.row("metrics", "box-convention-mix")
    mase, maoe = _error(metrics, "mASE"), _error(metrics, "mAOE")
    if metrics.map is not None and metrics.map < facts.row("metrics", "near-zero")["map_below"]:
        return  # without hits the errors say nothing
    if mase is not None and maoe is not None and mase >= row["mase_from"] and maoe >= row["maoe_from"]:
        yield fail(
            f"mASE {mase:.3f} and mAOE {maoe:.3f}: boxes have width and length exchanged and a turned yaw",
            "Infos or code of mmdet3d < 1.0 were mixed with >= 1.0: prepare the infos again.",
            "bevrepro doctor data INFOS",
        )


def _near_zero(metrics: Metrics) -> Iterator[Verdict]:
    row = facts.row("metrics", "near-zero")
    if metrics.map is not None and metrics.map < row["map_below"]:
        yield fail(
            f"mAP {metrics.map:.4f}",
            "Weights of no detector, or whose keys did not match (the log has a warning): look at them.",
            "bevrepro doctor ckpt FILE",
        )


def _batch(metrics: Metrics) -> Iterator[Verdict]:
    row = facts.row("metrics", "batch-without-lr")
    if metrics.nds is not None and abs(metrics.nds - row["nds"]) <= row["tolerance"]:
        yield warn(
            f"NDS {metrics.nds:.4f}: what tiny gave at batch 4 without the matching learning rate",
            "Train with an effective batch of 8 (bevrepro emulates 8 GPUs), or change the rate with it.",
            "bevrepro doctor config CONFIG",
        )


def _temporal(metrics: Metrics) -> Iterator[Verdict]:
    row, mave = facts.row("metrics", "temporal-lost"), _error(metrics, "mAVE")
    if _absent(metrics):
        return  # every error of a class that is not there counts as 1
    if mave is not None and mave >= row["mave_from"] and (metrics.map or 0) > 0.1:
        yield warn(
            f"mAVE {mave:.3f} at mAP {metrics.map:.4f}: the model did not know where it was before",
            "Evaluate frames in order, one at a time, in video mode; look at the sampler and at CAN data.",
            "bevrepro doctor config CONFIG",
        )


def _absent(metrics: Metrics) -> list[str]:
    """Classes without any hit beside others that have many."""
    found = metrics.class_ap or {}
    seen = sum(ap > 0.05 for ap in found.values())
    return sorted(name for name, ap in found.items() if ap == 0) if seen >= 3 else []


def _absent_classes(metrics: Metrics) -> Iterator[Verdict]:
    if zero := _absent(metrics):
        yield warn(
            f"AP is exactly 0 for {', '.join(zero)}",
            "The split lacks these classes (mini_val does): never compare it with the full validation set.",
        )


def _ema(metrics: Metrics) -> Iterator[Verdict]:
    low, high = facts.row("metrics", "raw-instead-of-ema")["low"]
    for published in (row for row in _published() if row.get("ema")):
        if metrics.map is None or metrics.nds is None:
            return
        missing = (published["map"] - metrics.map, published["nds"] - metrics.nds)
        if all(low <= each <= high for each in missing):
            yield warn(
                f"mAP and NDS are {missing[0]:.3f} and {missing[1]:.3f} below {published['title']}'s",
                "Were raw weights evaluated instead of their moving average? Look for NAME_ema.pth.",
            )


def _as_published(metrics: Metrics) -> Iterator[Verdict]:
    tolerance = facts.row("metrics", "as-published")["tolerance"]
    for row in _published():
        if metrics.map is None or metrics.nds is None:
            return
        if max(abs(metrics.map - row["map"]), abs(metrics.nds - row["nds"])) <= tolerance + 1e-9:
            yield info(f"as published for {row['title']}: mAP {row['map']:.3f}, NDS {row['nds']:.3f}")
            return
    if metrics.nds is not None:
        yield info(f"{_told(metrics)}: no published result known here",
                   "Compare only equal splits, sizes and numbers of GPUs.")  # fmt: skip


def _published() -> list[facts.Row]:
    return [row for row in facts.table("metrics") if "title" in row]


CHECKS = (
    readable_check("metrics", "the metrics"),
    Check("metrics-broken", "metrics", "whether they are metrics", "There is nothing to compare.", _broken),
    Check("metrics-box-convention", "metrics", "mASE and mAOE",
          "mAP looks as published, NDS is 0.10 too low.", _convention,
          (issue("fundamentalvision/BEVFormer", 24), issue("HuangJunJie2017/BEVDet", 66))),
    Check("metrics-near-zero", "metrics", "mAP near 0", "Nothing was learned or loaded.", _near_zero,
          (issue("fundamentalvision/BEVFormer", 118),)),
    Check("metrics-batch-lr", "metrics", "the NDS of a too small batch", "The training has to be repeated.",
          _batch),
    Check("metrics-temporal", "metrics", "mAVE", "Without its history BEVFormer is a single-frame model.",
          _temporal),
    Check("metrics-absent-classes", "metrics", "classes with AP 0", "They pull the mean down by tenths.",
          _absent_classes),
    Check("metrics-ema", "metrics", "NDS beside mAP", "EMA recipes publish the average's numbers.", _ema),
    Check("metrics-published", "metrics", "published results", "What others will see.", _as_published),
)  # fmt: skip


def examine_metrics(path: Path, deep: bool = False) -> tuple[Finding, ...]:
    """All findings about `path`: a metrics_summary.json, its folder, or a log."""
    return judge_all(probe_metrics(path, deep), CHECKS)
