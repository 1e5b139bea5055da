"""Several processes: NCCL, ports, GPUs that something else holds, HCCL's address."""

import re
from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.versions import kernel_older, older

# "ip[%ifname]": HCCL's own form. The network's name may hold what Linux allows.
IPV4 = r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
HCCL_ADDRESS = re.compile(rf"(?:{IPV4}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)(?:%[^\s%/:]{{1,15}})?")


def _nccl_wsl(machine: Machine) -> Iterator[Verdict]:
    torch, gpus = machine.python.torch, machine.cuda.gpus
    first_ok = facts.row("dist", "nccl-wsl")["first_ok"]
    if not torch or not gpus or not older(torch.nccl, first_ok):
        return
    unseen = [gpu for gpu in gpus if gpu.pci_path is False]
    if machine.host.wsl == 2 and all(gpu.pci_path is not True for gpu in gpus):
        judge = fail if unseen else warn
        yield judge(
            f"NCCL {torch.nccl} (in torch {torch.version}) on WSL2"
            + (f", and /sys/class/pci_bus does not lead to {unseen[0].bus_id}" if unseen else ""),
            f"Train on one GPU without a launcher, as `bevrepro train` does, or use NCCL {first_ok} or newer "
            "(torch 1.10).",
        )
    elif unseen and machine.host.wsl == 0:
        yield warn(
            f"NCCL {torch.nccl}, and /sys/class/pci_bus does not lead to {unseen[0].bus_id}",
            f"Mount /sys into the container, or use NCCL {first_ok} or newer.",
        )


def _kernel(machine: Machine) -> Iterator[Verdict]:
    """Never more than information: the cause was not found, and clusters train on 4.18 for years."""
    oldest, host = facts.row("dist", "kernel-hang")["oldest"], machine.host
    several = len(machine.cuda.gpus or ()) > 1
    if several and host.system == "Linux" and host.wsl == 0 and kernel_older(host.kernel, oldest):
        yield info(
            f"kernel {host.kernel}, and several GPUs; Hugging Face's accelerate warns below {oldest}",
            "Where processes of one run wait for each other without end, try NCCL_SHM_DISABLE=1 or a newer "
            "kernel before you look in the training.",
        )


def _ports(machine: Machine) -> Iterator[Verdict]:
    for port in machine.host.ports_in_use or ():
        yield warn(
            f"something listens on port {port}",
            "End what holds it (a run left over?), or name another port; `bevrepro train` takes a free one.",
            f"ss -ltnp 'sport = :{port}'",
            "export MASTER_PORT=29611 PORT=29611",
        )


def _occupied(machine: Machine) -> Iterator[Verdict]:
    least = facts.row("dist", "gpu-occupied")["mib"]
    for index, gpu in enumerate(machine.cuda.gpus or ()):
        holders = [each for each in gpu.processes or () if (each.memory_mib or least) >= least]
        if not holders:
            continue
        own = [each for each in holders if each.own]
        told = ", ".join(
            f"{each.name or 'a program'} (process {each.pid}, {each.memory_mib or '?'} MiB)"
            for each in holders[:3]
        )
        remedy = "Look whether they are left over from a run that died; end your own, leave others' alone."
        yield warn(
            f"GPU {index}, {gpu.name}, is used by {told}", remedy, *(f"kill {each.pid}" for each in own[:3])
        )


def _visible(machine: Machine) -> Iterator[Verdict]:
    environment, gpus = machine.host.environment or {}, machine.cuda.gpus
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not gpus:
        return
    entries = [each.strip() for each in listed.split(",")]
    beyond = [each for each in entries if each.isdigit() and int(each) >= len(gpus)]
    if listed.strip() in ("", "-1"):
        yield warn(f"CUDA_VISIBLE_DEVICES={listed!r} hides every GPU", "Unset it, or name one.",
                   "unset CUDA_VISIBLE_DEVICES")  # fmt: skip
    elif beyond:
        yield warn(
            f"CUDA_VISIBLE_DEVICES={listed} names GPU {beyond[0]}; there are {len(gpus)}, counted from 0",
            "CUDA drops that entry and all behind it.",
            "unset CUDA_VISIBLE_DEVICES",
        )


def _hccl_if_ip(machine: Machine) -> Iterator[Verdict]:
    value = machine.host.variable("HCCL_IF_IP")
    if value is None:
        return
    if not HCCL_ADDRESS.fullmatch(value):
        yield fail(f"HCCL_IF_IP={value} is no address", "Write ip or ip%interface, or leave it out.",
                   "unset HCCL_IF_IP", fixable=True)  # fmt: skip
    elif machine.host.addresses == ():
        yield fail(
            f"HCCL_IF_IP={value} is no address of this machine",
            "It was set for another one: leave it out, or name an address of this machine.",
            "unset HCCL_IF_IP",
            "ip -brief address",
            fixable=True,
        )


def _ranks(machine: Machine) -> Iterator[Verdict]:
    world, rank = machine.host.variable("WORLD_SIZE"), machine.host.variable("RANK")
    if world and world != "1" and rank is None:
        yield info(
            f"WORLD_SIZE={world} is set in this shell without RANK",
            "A program that reads it waits for processes that never come: unset it, the launcher sets it.",
            "unset WORLD_SIZE",
        )


CHECKS = (
    Check("nccl-old-wsl", "dist", "NCCL against WSL2 and the GPUs' place in /sys",
          "Even one GPU stops with 'NCCL error: unhandled system error': NCCL cannot find its PCI path.",
          _nccl_wsl, (issue("NVIDIA/nccl", 442), issue("NVIDIA/nccl", 511))),
    Check("kernel-hang", "dist", "the kernel's version, where there are several GPUs",
          "It is reported that processes hang when they wait for each other; the cause is not known "
          "(unverified).", _kernel,
          (issue("huggingface/accelerate", 1929), issue("modelscope/ms-swift", 283))),
    Check("port-in-use", "dist", "the ports that launchers take",
          "The launcher stops with 'Address already in use'.", _ports),
    Check("gpu-occupied", "dist", "programs that hold a GPU's memory",
          "Training stops with 'CUDA out of memory' although the card is big enough.", _occupied),
    Check("visible-devices", "dist", "CUDA_VISIBLE_DEVICES against the GPUs",
          "torch sees fewer GPUs than there are, or none.", _visible),
    Check("hccl-if-ip", "dist", "HCCL_IF_IP",
          "HCCL cannot open its connections: initialisation of the process group stops.", _hccl_if_ip),
    Check("rank-variables", "dist", "a launcher's variables left in the shell",
          "Programs believe to be one of several.", _ranks),
)  # fmt: skip
