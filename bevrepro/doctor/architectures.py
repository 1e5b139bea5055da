"""Which compiled code runs on which GPU (facts/torch.toml, row cubin-rule)."""

from collections.abc import Iterable


def runs_on(architectures: Iterable[str], ptx: Iterable[str], capability: str) -> bool | None:
    """Whether a GPU of `capability` ("8.6") has code to run; None where that is unreadable.

    A cubin for X.y runs on X.z with z >= y; PTX for X.y can be compiled for everything from X.y on.
    """
    gpu = _pair(capability)
    cubins, intermediate = [*map(_pair, architectures)], [*map(_pair, ptx)]
    if gpu is None or None in cubins or None in intermediate:
        return None
    same_major = any(each is not None and each[0] == gpu[0] and each[1] <= gpu[1] for each in cubins)
    return same_major or any(each is not None and each <= gpu for each in intermediate)


def _pair(version: str) -> tuple[int, int] | None:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
