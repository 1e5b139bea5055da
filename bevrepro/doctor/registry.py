"""Every check, in the order in which the report tells them. A new family is one more line here."""

from bevrepro.doctor import cpu, cuda, fuse, host, python, torch
from bevrepro.doctor.check import Check

CHECKS: tuple[Check, ...] = (
    *host.CHECKS,
    *cpu.CHECKS,
    *cuda.CHECKS,
    *fuse.CHECKS,
    *python.CHECKS,
    *torch.CHECKS,
)
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(check.family for check in CHECKS))
