"""A receipt against what it speaks of."""

import json
from dataclasses import replace

import pytest

from bevrepro.env.receipt import SEAL
from bevrepro.env.verify_receipt import Now, judge_receipt, parse, seal

TOLD = {
    "schema": 1,
    "target": "cpu",
    "path": "/e.builds/0123456789abcdef",
    "inputs_digest": "0123456789abcdef" + "0" * 48,
    "digest": "d" * 64,
    "locks": {"locks/cpu.txt": "e" * 64},
    "packages": {"torch": "2.13.0"},
    "python": {"version": "3.11.7"},
    "patches": [{"set": "mmcv-full-1.6.0", "sha256": "f" * 64}],
    "cuda": {"version": "11.8", "home": "/c", "digest": "9" * 64},
    "steps": [{"name": "wheels", "digest": "8" * 64}],
}
TOLD = {**TOLD, SEAL: seal(TOLD)}
NOW = Now(
    path="/e.builds/0123456789abcdef",
    folder="0123456789abcdef",
    digest="d" * 64,
    locks={"locks/cpu.txt": "e" * 64},
    patches={"mmcv-full-1.6.0": "f" * 64},
    steps={"wheels": "8" * 64},
    python="3.11.7",
    cuda="9" * 64,
)


def spelled(told):
    return json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def ids(told, now):
    return [each.id.removeprefix("verify-receipt-") for each in judge_receipt(told, now)]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, []),
        ({"digest": "0" * 64}, ["digest"]),
        ({"folder": "fedcba9876543210"}, ["inputs"]),
        ({"path": "/elsewhere"}, ["moved"]),
        ({"locks": {"locks/cpu.txt": "0" * 64}}, ["lock"]),
        ({"locks": {}}, ["lock"]),
        ({"patches": {"mmcv-full-1.6.0": None}}, ["patches"]),
        ({"python": "3.11.9"}, ["python"]),
        ({"cuda": "0" * 64}, ["cuda"]),
        ({"steps": {"wheels": "0" * 64}}, ["step"]),
    ],
)
def test_every_disagreement_is_told(change, wanted):
    assert ids(TOLD, replace(NOW, **change)) == wanted


@pytest.mark.parametrize("key", sorted(set(TOLD) - {"schema", SEAL}))
def test_any_edit_of_a_receipt_is_told(key):
    edited, _ = parse(spelled({**TOLD, key: type(TOLD[key])()}))
    assert edited is not None and "edited" in ids(edited, NOW)


def test_another_spelling_of_the_same_receipt_is_an_edit():
    assert parse(spelled(TOLD))[0] == TOLD
    assert "edited" in parse(spelled(TOLD).replace("  ", "\t"))[1]


@pytest.mark.parametrize(
    ("text", "word"),
    [(None, "no receipt"), ("{", "no JSON"), ("[]", "no JSON object"), ("{}", "schema"),
     ('{"schema": 1, "target": 3}', "'target'"), (json.dumps({**TOLD, "steps": [1]}), "a list or a number")],
)  # fmt: skip
def test_what_is_no_receipt_is_told(text, word):
    told, why = parse(text)
    assert told is None and word in why
