"""`bevrepro doctor --fix [--dry-run]` and `--undo`: plan, show, do, take back."""

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import asdict

from bevrepro.cli.doctor_formats import print_json
from bevrepro.core.finding import Finding
from bevrepro.core.machine import Machine
from bevrepro.doctor.fix import Fix, plan
from bevrepro.drive import mend as mending


def mend(machine: Machine, findings: Sequence[Finding], dry_run: bool, as_json: bool) -> None:
    """Do what can be taken back, or only show it."""
    around = mending.look_around(machine)
    fixes = plan(machine, findings, around)
    undo = None if dry_run or not fixes else str(mending.carry_out(fixes))
    if as_json:
        print_json({"dry_run": dry_run, "undo": undo, "fixes": [asdict(fix) for fix in fixes]})
        return
    for fix in fixes:
        print(f"{'Would' if dry_run else 'Did'}: {fix.what}  [{', '.join(fix.findings)}]")
        if dry_run:
            _print_difference(fix)
    if not fixes:
        print("Nothing to mend here that --fix may touch (only your own files, only what can be taken back).")
    script_is_there = around.script_text is not None or any(fix.path == around.script for fix in fixes)
    if script_is_there and not dry_run:
        print(f"Settings count where they are sourced:\n  . {shlex.quote(around.script)}")
    if undo:
        print("To take it back:\n  bevrepro doctor --undo")


def undo_last(as_json: bool) -> None:
    """Put every file of the last --fix back as it was."""
    fixes = mending.take_back()
    if as_json:
        print_json({"restored": [fix.path for fix in fixes if not fix.mount]})
        return
    if not fixes:
        print("Nothing to take back: no --fix is on record.")
    for fix in fixes:
        if fix.mount:
            print(f"Left alone: {fix.path} (a dead mount cannot come back; bevrepro data status)")
        else:
            print(f"{'Removed' if fix.before is None else 'Restored'}: {fix.path}")


def _print_difference(fix: Fix) -> None:
    if fix.mount:
        return
    before, after = (fix.before or "").splitlines(), (fix.after or "").splitlines()
    for line in list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]:
        print(f"    {line}")
