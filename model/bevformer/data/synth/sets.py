"""Which set is imitated: its scenes, the options that make it, and what is in range."""

import argparse
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

from bevformer.data.splits import scene_names
from bevformer.errors import ConfigError

# v1.0-mini's scenes in their order; 0103 and 0916 are mini_val, the others mini_train
MINI_SCENES = tuple("scene-%04d" % number for number in (61, 103, 553, 655, 757, 796, 916, 1077, 1094, 1100))
KINDS = ("mini", "trainval", "test")
MOST_SCENES = {"mini": len(MINI_SCENES), "trainval": 150, "test": 150}  # every four widen the maps by 160 m
PACKS = ("blobs", "keyframes", "camera", "lidar")
WEATHERS = ("clear", "rain", "night")
PARTS = 10  # the official trainval set comes in ten parts
VAL_EVERY = 5  # of the scenes of a small trainval, every fifth validates: near the official 150 of 850
FORMAT = 1  # raised whenever the same options give another set


@dataclass(frozen=True)
class Options:
    """What is asked for.  `sweeps` is per sensor between two key frames; `parts` and `packs` are archives."""

    seed: int
    scenes: int
    samples: int
    scale: float
    kind: str = "mini"
    weather: str = "clear"
    sweeps: int = 0
    parts: int = 1
    packs: Tuple[str, ...] = ("blobs",)
    defects: Tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return "v1.0-" + self.kind

    @property
    def recipe(self) -> Dict[str, Any]:
        """What the tokens depend on: neither the archives nor the defects, so that sets can be compared."""
        made: Dict[str, Any] = {
            "made_by": "bevformer synth",
            "format": FORMAT,
            "version": self.version,
            "seed": self.seed,
            "scenes": self.scenes,
            "samples": self.samples,
            "scale": self.scale,
        }
        if self.weather != "clear":
            made["weather"] = self.weather
        if self.sweeps:
            made["sweeps"] = self.sweeps
        return made

    @property
    def packing(self) -> Dict[str, Any]:
        """What else made the set; empty for the default one."""
        return {} if self.kind == "mini" else {"parts": self.parts, "packs": list(self.packs)}

    @property
    def frames(self) -> int:
        return self.scenes * self.samples

    def scene_names(self) -> List[str]:
        """Official names.  DataError where the devkit, which lists those of trainval and test, is missing."""
        if self.kind == "mini":
            return list(MINI_SCENES[: self.scenes])
        train, val = (sorted(names) for names in scene_names(self.version))
        chosen, train_at, val_at = [], 0, 0
        for number in range(self.scenes):
            if val and number % VAL_EVERY == 1:
                chosen.append(val[val_at])
                val_at += 1
            else:
                chosen.append(train[train_at])
                train_at += 1
        return chosen

    def part_of(self, number: int) -> int:
        """The part, from 0, that holds the scene with this number: equal shares, in their order."""
        return number * self.parts // self.scenes


def parse(argv: List[str], defect_kinds: Tuple[str, ...]) -> Tuple[argparse.Namespace, Options]:
    """The arguments (`out`, `force`, `dry_run`) and what is asked for.  ConfigError when out of range."""
    args = _parser(defect_kinds).parse_args(argv)
    kind = args.set
    scenes = 10 if args.scenes is None else args.scenes
    parts = args.parts if args.parts is not None else min(PARTS, scenes) if kind == "trainval" else 1
    packs = tuple(sorted(set(args.pack or ["blobs"]), key=PACKS.index))
    options = Options(
        args.seed,
        scenes,
        args.samples,
        args.scale,
        kind,
        args.weather,
        args.sweeps,
        parts,
        packs,
        tuple(sorted(set(args.defect))),
    )
    _check(options, bool(args.pack))
    return args, options


def _parser(defect_kinds: Tuple[str, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="synth", description="Write a synthetic set in nuScenes format.")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, help="mini: 2 to 10; trainval and test: to 150 (default 10)")
    parser.add_argument("--samples", type=int, default=10, help="key frames per scene, 2 to 40, two a second")
    parser.add_argument("--scale", type=float, default=0.16, help="image size, times 1600x900")
    parser.add_argument("--set", choices=KINDS, default="mini", help="tables and archives named like these")
    parser.add_argument("--weather", choices=WEATHERS, default="clear", help="noise in pictures and lidar")
    parser.add_argument("--sweeps", type=int, default=0, help="between two key frames, per sensor; 0 to 9")
    parser.add_argument("--parts", type=int, help="trainval: blob archives (default: ten, or one a scene)")
    parser.add_argument("--pack", choices=PACKS, action="append", help="trainval: which archives; repeat")
    parser.add_argument(
        "--defect", choices=defect_kinds, action="append", default=[], help="break this on purpose; repeat"
    )
    parser.add_argument("--force", action="store_true", help="replace a set that this command made")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def _check(options: Options, packs_given: bool) -> None:
    for name, value, low, high in (
        ("--scenes", options.scenes, 2, MOST_SCENES[options.kind]),
        ("--samples", options.samples, 2, 40),
        ("--scale", options.scale, 0.05, 1.0),
        ("--seed", options.seed, 0, 2**31 - 1),
        ("--sweeps", options.sweeps, 0, 9),
        ("--parts", options.parts, 1, min(PARTS, options.scenes) if options.kind == "trainval" else 1),
    ):
        if not low <= value <= high:
            why = "" if low < high else "Only --set trainval comes in parts."
            raise ConfigError(
                "%s %s is out of range" % (name, value), why, "Choose %s from %s to %s." % (name, low, high)
            )
    if packs_given and options.kind != "trainval":
        raise ConfigError(
            "--pack is for --set trainval",
            "%s comes as whole archives only." % options.version,
            "Leave --pack out, or add --set trainval.",
        )
    if "missing-part" in options.defects and options.parts < 2:
        raise ConfigError(
            "there is only one part, so none can be missing",
            do="Add --set trainval --parts 2, or leave --defect missing-part out.",
        )
