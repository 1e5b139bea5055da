"""How long a training takes: from a step timed here, else from what others report of the same GPU."""

from dataclasses import dataclass
from typing import Any

from bevrepro import facts

DAY_S = 86400.0
LEVELS = {
    "maintainer": "reported by the authors of the code",
    "log": "read from training logs",
    "report": "one user's report",
}


@dataclass(frozen=True)
class Pace:
    """Seconds per sample and device, as a span; None where nobody knows. `evidence`: how it is known."""

    device: str
    low_s: float | None
    high_s: float | None
    evidence: str

    def samples_per_s(self, devices: int = 1) -> tuple[float, float] | None:
        """(slowest, fastest)."""
        if self.low_s is None or self.high_s is None:
            return None
        return devices / self.high_s, devices / self.low_s

    def days(self, samples: int, devices: int = 1) -> tuple[float, float] | None:
        """(shortest, longest) of a training over so many samples; several devices share them evenly."""
        if self.low_s is None or self.high_s is None:
            return None
        return tuple(samples * each / devices / DAY_S for each in (self.low_s, self.high_s))  # type: ignore[return-value]


def samples_of(schedule: dict[str, Any]) -> int:
    """Samples that a whole training sees: epochs of nuScenes' training set, or its fixed steps."""
    if schedule["max_steps"]:
        return int(schedule["max_steps"]) * int(schedule["batch"])
    return int(schedule["max_epochs"]) * int(facts.row("nuscenes", "v1.0-trainval")["frames"][0])


def pace_here(found: dict[str, Any]) -> Pace:
    """From the model plane's `pace`."""
    each_s = float(found["step_s"]) / int(found["samples"])
    threads = f", {found['threads']} threads" if found["threads"] else ""
    if found["kind"] == "measured":
        evidence = f"measured here just now, without loading{threads}"
    else:
        evidence = f"estimated from one image through the backbone{threads}: a step is too long to time"
    return Pace(str(found["device"]), each_s, each_s, evidence)


def pace_of(config: str, gpu: str) -> Pace:
    """From the table; without a row for this GPU nothing is said of it."""
    for row in rows_of(config):
        if row["gpu"].lower() in gpu.lower():
            evidence = f"{LEVELS[row['level']]}, for the reference's code: {row['source']}"
            return Pace(gpu, float(row["low_s"]), float(row["high_s"]), evidence)
    return Pace(gpu, None, None, "no report of this configuration on this GPU is known")


def rows_of(config: str) -> tuple[dict[str, Any], ...]:
    """What is known of a configuration on other GPUs."""
    return tuple(row for row in facts.table("pace") if row["config"] == config)
