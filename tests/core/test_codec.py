"""Frozen values to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from bevrepro.core.codec import from_json, to_json
from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Gpu, Machine


@dataclass(frozen=True)
class Sample:
    name: str
    quota: float | None = None
    gpus: tuple[Gpu, ...] | None = None
    environment: Mapping[str, str] | None = None


def there_and_back(value):
    return from_json(type(value), json.loads(json.dumps(to_json(value))))


@pytest.mark.parametrize(
    "value",
    [
        Sample("a"),
        Sample("a", 1.5, (Gpu("A100", 40960),), {"CUDA_HOME": "/usr"}),
        Sample("a", gpus=()),
        Finding("id", "host", Severity.WARN, "seen", "why", "remedy", ("ls",)),
        Machine(),
    ],
)
def test_a_value_comes_back_equal(value):
    assert there_and_back(value) == value


def test_unknown_stays_unknown_and_none_found_stays_none_found():
    assert there_and_back(Sample("a", gpus=None)).gpus is None
    assert there_and_back(Sample("a", gpus=())).gpus == ()


def test_a_whole_number_is_read_as_a_float_where_one_is_wanted():
    assert from_json(Sample, {"name": "a", "quota": 2}).quota == 2.0


def test_fields_of_a_newer_version_are_left_out():
    assert from_json(Sample, {"name": "a", "later": 1}) == Sample("a")


@pytest.mark.parametrize(
    "data, where",
    [
        ([], "Sample"),
        ({}, "Sample"),
        ({"name": 3}, "Sample.name"),
        ({"name": "a", "gpus": [{"name": "A100", "memory_total_mib": "much"}]}, "gpus[0].memory_total_mib"),
        ({"name": "a", "environment": []}, "Sample.environment"),
        ({"name": "a", "quota": True}, "Sample.quota"),
    ],
)
def test_a_wrong_value_is_named(data, where):
    with pytest.raises(ValueError) as caught:
        from_json(Sample, data)
    assert where in str(caught.value)
