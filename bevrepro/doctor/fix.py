"""What `doctor --fix` would do: plans as values, made from findings and from what lies around. No I/O here.

Only reversible things in the user's own files: lines in a script of ours that the user sources, a proposal
beside `.wslconfig`, dead mounts of ours detached. Never drivers, site-packages or anybody else's files.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bevrepro.core.finding import Finding
from bevrepro.core.machine import Machine
from bevrepro.core.units import GIB
from bevrepro.doctor.versions import major

DEAD_MOUNT = "mount-dead"  # no check's id: mounts are looked at when they are cleaned up
SETTING = re.compile(r"\s*(?:export|unset)\s+([A-Za-z_]\w*)|\s*(ulimit -n)\b")
VARIABLE = re.compile(r"[A-Za-z_]\w*")
HEADER = (
    "# Written by `bevrepro doctor --fix`, taken back by `bevrepro doctor --undo`. Lines of yours are kept.\n"
    "# Use it in a shell:  . {path}\n"
)


@dataclass(frozen=True)
class Around:
    """What the plans depend on beside the machine: places, programs and the files as they are now."""

    script: str  # the activation script's path
    script_text: str | None = None  # None: it does not exist
    toolkits: tuple[tuple[str, str | None], ...] = ()  # (folder with bin/nvcc, its version if known)
    compilers: tuple[str, ...] = ()  # "g++-10"
    wslconfig: str = ""  # path of the user's .wslconfig, "" where it was not found
    wslconfig_text: str | None = None
    proposal: str = ""  # where a proposal for it goes
    proposal_text: str | None = None
    dead_mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fix:
    """One change. A file goes from `before` to `after` (None: it is not there); a mount is detached."""

    findings: tuple[str, ...]  # ids
    what: str
    path: str
    before: str | None = None
    after: str | None = None
    mount: bool = False  # `path` is a dead mount point


@dataclass(frozen=True)
class Setting:
    """One line of the activation script."""

    finding: str
    line: str


def plan(machine: Machine, findings: Iterable[Finding], around: Around) -> tuple[Fix, ...]:
    """Everything that may be done here; nothing for what is done already."""
    findings = tuple(findings)
    fixes = [*_script(machine, findings, around), *_wslconfig(machine, findings, around)]
    for place in around.dead_mounts:
        fixes.append(
            Fix((DEAD_MOUNT,), f"detach the dead mount {place} (its program is gone)", place, mount=True)
        )
    return tuple(fixes)


def settings(machine: Machine, findings: Iterable[Finding], around: Around) -> tuple[Setting, ...]:
    """The lines that would cure what was found; a finding without a rule gives none."""
    with_rule = [each for each in findings if each.id in RULES]
    lines = ((each.id, line) for each in with_rule for line in RULES[each.id](each, machine, around))
    return tuple(dict.fromkeys(Setting(id, line) for id, line in lines))


def merge(text: str | None, new: Sequence[Setting], path: str) -> str:
    """The script with these settings: a line for the same variable is replaced, every other line is kept."""
    kept = (HEADER.format(path=shlex.quote(path)) if text is None else text).splitlines()
    for setting in new:
        line = f"{setting.line}  # {setting.finding}"
        name = _name(setting.line)
        at = next((index for index, old in enumerate(kept) if _name(old) == name), None)
        if at is None:
            kept.append(line)
        else:
            kept[at] = line
    return "\n".join(kept) + "\n"


def _name(line: str) -> str | None:
    match = SETTING.match(line)
    return (match[1] or match[2]) if match else None


def _script(machine: Machine, findings: Sequence[Finding], around: Around) -> Iterator[Fix]:
    new = settings(machine, findings, around)
    after = merge(around.script_text, new, around.script)
    if new and after != around.script_text:
        told = "; ".join(setting.line for setting in new)
        found = tuple(dict.fromkeys(setting.finding for setting in new))
        yield Fix(found, f"write into {around.script}: {told}", around.script, around.script_text, after)


def _cuda_home(finding: Finding, machine: Machine, around: Around) -> Iterator[str]:
    toolkit = machine.cuda.toolkit
    variable = toolkit.source if toolkit and toolkit.source in ("CUDA_HOME", "CUDA_PATH") else "CUDA_HOME"
    home = _best_toolkit(machine, around)
    if home is not None:
        yield f"export {variable}={shlex.quote(home)}"
    elif toolkit is not None:
        yield f"unset {variable}"


def _best_toolkit(machine: Machine, around: Around) -> str | None:
    """Of torch's CUDA where one is known, else the first named in the variable, else the first at all."""
    torch = machine.python.torch
    wanted = torch.cuda if torch and torch.cuda else None
    exact = [home for home, version in around.toolkits if wanted and version == wanted]
    same = [home for home, version in around.toolkits if wanted and major(version) == major(wanted)]
    toolkit = machine.cuda.toolkit
    named = toolkit.home.split(":") if toolkit else []
    listed = [home for home, _ in around.toolkits if home in named]
    every = [home for home, _ in around.toolkits]
    return next(iter((*exact, *same, *listed, *every)), None)


def _host_compiler(finding: Finding, machine: Machine, around: Around) -> Iterator[str]:
    toolkit = machine.cuda.toolkit
    limit = toolkit.max_gcc if toolkit else None
    fitting = [name for name in around.compilers if (major(name[4:]) or 0) <= (limit or 0)]
    if fitting:
        yield f"export CUDAHOSTCXX={max(fitting, key=lambda name: major(name[4:]) or 0)}"


def _as_told(finding: Finding, machine: Machine, around: Around) -> Iterator[str]:
    """The finding's own commands, where they set or unset a variable; values are quoted for the shell."""
    for command in finding.commands:
        name, equals, value = command.removeprefix("export ").partition("=")
        if command.startswith("unset ") and VARIABLE.fullmatch(command.removeprefix("unset ")):
            yield command
        elif command.startswith("export ") and equals and VARIABLE.fullmatch(name):
            yield f"export {name}={shlex.quote(value)}"


def _open_files(finding: Finding, machine: Machine, around: Around) -> Iterator[str]:
    yield 'ulimit -n "$(ulimit -Hn)"'


# finding -> lines of the activation script. Each only changes the shell that sources it.
RULES: dict[str, Callable[[Finding, Machine, Around], Iterator[str]]] = {
    "cuda-home-list": _cuda_home,
    "cuda-home-missing": _cuda_home,
    "cuda-home-unset": _cuda_home,
    "cuda-link": _as_told,
    "gcc-too-new": _host_compiler,
    "arch-list-gpu": _as_told,
    "library-path-shadow": _as_told,
    "user-site-leak": _as_told,
    "pythonpath-leak": _as_told,
    "open-files-low": _open_files,
    "hccl-if-ip": _as_told,
    "npu-no-cann": _as_told,
    "libgomp-static-tls": _as_told,
}


def _wslconfig(machine: Machine, findings: Sequence[Finding], around: Around) -> Iterator[Fix]:
    total_b = machine.host.memory_total_b
    if all(each.id != "wsl-memory" for each in findings) or not around.proposal or total_b is None:
        return
    text = propose_wslconfig(around.wslconfig_text, total_b)
    if text != around.proposal_text:
        target = around.wslconfig or "%UserProfile%\\.wslconfig"
        what = f"write {around.proposal}: read it, copy it to {target}, then run wsl.exe --shutdown"
        yield Fix(("wsl-memory",), what, around.proposal, around.proposal_text, text)


def propose_wslconfig(text: str | None, total_b: int) -> str:
    """The user's .wslconfig with memory= and swap= set; every other line as it was.

    `total_b` is what WSL has now. By default that is half of Windows' memory, so half again as much makes
    three quarters of it.
    """
    lines = (text or "[wsl2]\n").splitlines()
    memory_gib = max(1, round(total_b * 1.5 / GIB))
    note = "# Proposed by `bevrepro doctor --fix`: leave Windows at least 2 GB."
    wanted = {"memory": f"memory={memory_gib}GB", "swap": f"swap={max(8, 2 * memory_gib)}GB"}
    start = next((i for i, line in enumerate(lines) if line.strip().lower() == "[wsl2]"), None)
    if start is None:
        lines += ["[wsl2]"]
        start = len(lines) - 1
    end = next((i for i in range(start + 1, len(lines)) if lines[i].strip().startswith("[")), len(lines))
    body = [line for line in lines[start + 1 : end] if line.partition("=")[0].strip().lower() not in wanted]
    body = [line for line in body if line != note]
    return "\n".join([*lines[: start + 1], note, *wanted.values(), *body, *lines[end:]]) + "\n"
