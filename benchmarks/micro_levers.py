"""The micro recipe with every backend of the attentions and every lever: does its score stay in its band?

    python benchmarks/micro_levers.py FOLDER [--only NAME ...] --out benchmarks/micro_levers.json

FOLDER keeps the data and the runs; what has ended there is not trained again.  Two minutes each.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SHARED = ["schedule.max_steps=400", "schedule.warmup_steps=12"]
FP32 = ["ops.pixels=device", "ops.channels_last=on", "ops.folded_norms=on", "ops.adamw=fused"]
LADDER = "encoder-layers,backbone-blocks,decoder-layers,sampling"
CASES = {
    "reference": ["--cfg-options", *SHARED, "ops.attention=reference"],
    "cpp": ["--cfg-options", *SHARED, "ops.attention=cpp"],
    "cpp, simplejpeg": ["--cfg-options", *SHARED, "ops.attention=cpp", "ops.decoder=simplejpeg"],
    "cpp, levers": ["--cfg-options", *SHARED, "ops.attention=cpp", *FP32],
    "cpp, levers, bf16": ["--amp", "bf16", "--cfg-options", *SHARED, "ops.attention=cpp", *FP32],
    "reference, levers, bf16": ["--amp", "bf16", "--cfg-options", *SHARED, "ops.attention=reference", *FP32],
    # Where mmcv is: bevrepro env build --target cpu-openmmlab-torch2
    "mmcv": ["--target", "cpu-openmmlab-torch2", "--cfg-options", *SHARED, "ops.attention=mmcv"],
    "cpp, memory lean": ["--memory", "sampling", "--cfg-options", *SHARED, "ops.attention=cpp"],
    # These end with the weights of `reference` and of `cpp`, to the bit: all that they use is identical.
    "reference, one buffer": ["--cfg-options", *SHARED, "ops.attention=reference", "ops.gradients=flat"],
    "cpp, whole ladder": ["--memory", LADDER, "--cfg-options", *SHARED, "ops.attention=cpp"],
    "cpp, single images": ["--cfg-options", *SHARED, "ops.attention=cpp", "ops.cameras_at_once=1"],
}


def bevrepro(*words):
    """Its exit code is ours when it fails."""
    done = subprocess.run([sys.executable, "-m", "bevrepro", *map(str, words)], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def prepare(folder):
    if not (folder / "infos").exists():
        bevrepro("data", "synth", folder / "data", "--seed", 0)
        nuscenes = folder / "data/nuscenes"
        bevrepro("data", "prepare", "--data-root", nuscenes, "--out", folder / "infos")
    return ["--data-root", folder / "data/nuscenes", "--infos", folder / "infos"]


def run(folder, name, data):
    """Train, evaluate; the folder of the run."""
    work = folder / name.replace(", ", "-").replace(" ", "_")
    if not (work / "eval/eval.json").exists():
        where = ["--work-dir", work, "--seed", 0, "--resume", "auto", "--no-validate"]
        bevrepro("train", "bevformer_micro", *data, *where, *CASES[name])
        which = ["--split", "train", "--subset", "labelled", "--out", work / "eval"]
        bevrepro("eval", "bevformer_micro", work / "latest.pth", *data, *which)
    return work


def row(name, work, band):
    run_json = json.loads((work / "run.json").read_text())
    score = json.loads((work / "eval/eval.json").read_text())["labelled"]
    found = {"map": round(score["mAP"], 4), "nds": round(score["NDS"], 4)}
    inside = all(band[key][0] <= found[key] <= band[key][1] for key in found)
    return {
        "name": name,
        "words": [str(word) for word in CASES[name] if word not in SHARED],
        **found,
        "inside": inside,
        "loss": run_json["losses"]["loss"],
        "operators": run_json["sessions"][-1].get("operators") or run_json.get("operators"),
        "weights_digest": run_json["weights_digest"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    recorded = json.loads(Path(__file__).with_name("micro_synth.json").read_text())
    data = prepare(args.folder)
    rows, session = [], {}
    for name in args.only:
        work = run(args.folder, name, data)
        session = json.loads((work / "run.json").read_text())["sessions"][-1]
        rows.append(row(name, work, recorded["band"]))
        print(json.dumps(rows[-1]), flush=True)
    facts = {key: session.get(key) for key in ("started", "host", "versions")}
    facts.update(band=recorded["band"], rows=rows)
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
