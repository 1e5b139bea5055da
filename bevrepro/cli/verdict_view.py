"""A verdict as text: the word, the numbers, the fingerprint that matches, the next command."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bevrepro.drive.recipes import Band
    from bevrepro.drive.verdict import Verdict


def print_verdict(verdict: "Verdict", as_json: bool) -> None:
    """To stdout."""
    if as_json:
        print(json.dumps({**asdict(verdict), "passed": verdict.passed}, indent=2))
    else:
        print("\n".join(lines(verdict)))


def lines(verdict: "Verdict") -> list[str]:
    """The first line is the verdict."""
    told = [f"{verdict.word.upper()}: {verdict.recipe}, {verdict.kind}: {verdict.sentence}."]
    for name, value, band in (
        ("mAP", verdict.map, verdict.wanted_map),
        ("NDS", verdict.nds, verdict.wanted_nds),
    ):
        if value is not None:
            told.append(f"  {name} {value:.4f}{_wanted(band)}")
    for number, cause in enumerate(verdict.causes):
        title = "Cause" if cause.sure else "Looks like"
        told.append(f"{title if not number else 'Also'}: {cause.name} (from {cause.where})")
        told.append(f"  {cause.seen}")
    if not verdict.passed and not verdict.causes:
        told.append("No known mistake looks like this.")
    if verdict.next:
        told.append(f"Next: {verdict.next}")
    return told


def _wanted(band: "Band | None") -> str:
    return "" if band is None else f"   wanted {band[0]:.4f} to {band[1]:.4f}"
