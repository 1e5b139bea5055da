"""The band of `bevrepro reproduce micro_synth`, from trainings with several seeds.

    python benchmarks/micro_synth.py WORK_FOLDER... --out benchmarks/micro_synth.json

Each folder holds a run.json and eval/eval.json, as `train` and `eval` of the recipe leave them (see
`bevrepro reproduce micro_synth --dry-run`). The band is where the next training lies with 95 % probability:
Student's t over the seeds, of mAP's logarithm (it cannot be negative) and of NDS.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

# Student's t, 97.5 %, by degrees of freedom
T = {4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201}


def band(values):
    """(from, to) of the next one."""
    mean, spread, n = statistics.mean(values), statistics.stdev(values), len(values)
    half = T[n - 1] * spread * math.sqrt(1 + 1 / n)
    return mean - half, mean + half


def bands(seeds):
    """{"map": [from, to], "nds": [from, to]}, to four digits."""
    low, high = band([math.log(each["map"]) for each in seeds])
    return {
        "map": [round(math.exp(low), 4), round(math.exp(high), 4)],
        "nds": [round(each, 4) for each in band([each["nds"] for each in seeds])],
    }


def read(folder):
    run = json.loads((folder / "run.json").read_text())
    score = json.loads((folder / "eval" / "eval.json").read_text())["labelled"]
    return run, {
        "seed": run["seed"],
        "map": round(score["mAP"], 4),
        "nds": round(score["NDS"], 4),
        "errors": {key: round(value, 4) for key, value in score["errors"].items()},
        "loss": run["losses"]["loss"],
        "weights_digest": run["weights_digest"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    runs, seeds = zip(*(read(folder) for folder in args.folders))
    alike = {json.dumps([run["config"], run["infos_digest"], run["status"]]) for run in runs}
    if len(alike) != 1:
        parser.error("the folders hold runs of different configurations or data")
    first = runs[0]["sessions"][0]
    made = {
        "recipe": "micro_synth",
        "steps": runs[0]["steps"],
        "frames": runs[0]["frames"],
        "infos_digest": runs[0]["infos_digest"],
        "scored": "labelled frames of mini_train, after the last step",
        "host": first["host"],
        "versions": first["versions"],
        "seeds": list(seeds),
        "band": bands(seeds),
    }
    args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
