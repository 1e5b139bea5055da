"""Sizes for people."""

GIB = 1 << 30
MIB = 1 << 20


def size(count_b: int) -> str:
    """`3.1 GiB`, `64 MiB`, `512 B`."""
    for unit, name in ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if count_b >= unit:
            number = count_b / unit
            return f"{number:.1f} {name}" if number < 10 else f"{number:.0f} {name}"
    return f"{count_b} B"
