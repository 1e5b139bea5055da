"""Sizes for people."""

import pytest

from bevrepro.core.units import size


@pytest.mark.parametrize(
    "count_b, text",
    [
        (512, "512 B"),
        (64 << 20, "64 MiB"),
        (3 << 30, "3.0 GiB"),
        (25276502016, "24 GiB"),
        (7 << 40, "7.0 TiB"),
    ],
)
def test_sizes_read_as_people_write_them(count_b, text):
    assert size(count_b) == text
