"""Which compiled code runs on which GPU (facts/torch.toml, rows cubin-rule and suffix-rule)."""

import re
from collections.abc import Iterable

NAME = re.compile(r"(\d+)\.(\d+)([af]?)")


def runs_on(architectures: Iterable[str], ptx: Iterable[str], capability: str) -> bool | None:
    """Whether a GPU of `capability` ("8.6") has code to run; None where that is unreadable.

    A cubin for X.y runs on X.z with z >= y; PTX for X.y can be compiled for everything from X.y on. Both for
    X.ya ("9.0a") serve X.y alone, and for X.yf its family: X.z with z >= y.
    """
    gpu, cubins, intermediate = NAME.fullmatch(capability), _names(architectures), _names(ptx)
    if gpu is None or gpu[3] or cubins is None or intermediate is None:
        return None
    major, minor = int(gpu[1]), int(gpu[2])
    exact = any(code == (major, minor, "a") for code in (*cubins, *intermediate))
    family = any(
        code[0] == major and code[1] <= minor
        for code in (*cubins, *(each for each in intermediate if each[2] == "f"))
        if code[2] != "a"
    )
    return exact or family or any(code[:2] <= (major, minor) for code in intermediate if not code[2])


def _names(names: Iterable[str]) -> list[tuple[int, int, str]] | None:
    found = [NAME.fullmatch(name) for name in names]
    read = [(int(each[1]), int(each[2]), each[3]) for each in found if each is not None]
    return read if len(read) == len(found) else None
