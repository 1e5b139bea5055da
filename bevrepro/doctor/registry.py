"""Every check, in the order in which the report tells them. A new family is one more line here."""

from bevrepro.doctor import (
    ascend,
    budget,
    ckpt,
    config,
    cpu,
    cuda,
    data,
    dist,
    env,
    fuse,
    host,
    metrics,
    openmmlab,
    proxy,
    python,
    torch,
)
from bevrepro.doctor.check import Check

CHECKS: tuple[Check, ...] = (
    *host.CHECKS,
    *proxy.CHECKS,
    *cpu.CHECKS,
    *cuda.CHECKS,
    *budget.CHECKS,
    *fuse.CHECKS,
    *python.CHECKS,
    *torch.CHECKS,
    *openmmlab.CHECKS,
    *dist.CHECKS,
    *ascend.CHECKS,
)
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(check.family for check in CHECKS))
# Families that look at a path: `bevrepro doctor FAMILY PATH`. Their findings carry the family's name.
PATH_CHECKS: dict[str, tuple[Check, ...]] = {
    "data": data.CHECKS,
    "ckpt": ckpt.CHECKS,
    "config": config.CHECKS,
    "metrics": metrics.CHECKS,
    "env": env.CHECKS,
}
ALL_CHECKS: tuple[Check, ...] = (*CHECKS, *(check for group in PATH_CHECKS.values() for check in group))
