"""The two planes and the command line mean the same by an exit code."""

import inspect

import pytest

import bevformer.errors
import bevrepro.core.errors


def codes(module) -> dict[str, int]:
    classes = inspect.getmembers(module, inspect.isclass)
    return {name: kind.exit_code for name, kind in classes if issubclass(kind, module.UserError)}


MODEL, CONTROL = codes(bevformer.errors), codes(bevrepro.core.errors)


@pytest.mark.parametrize("name", MODEL)
def test_an_error_of_the_model_plane_has_its_twin(name):
    assert MODEL[name] == CONTROL[name]


def test_every_cause_has_its_own_code_outside_the_reserved_ones():
    causes = {name: code for name, code in CONTROL.items() if name != "UserError"}
    assert len(set(causes.values())) == len(causes)
    assert not set(causes.values()) & {0, 1, 2, 70, 130}


@pytest.mark.parametrize("module", [bevformer.errors, bevrepro.core.errors])
def test_an_error_carries_its_three_parts(module):
    error = module.DataError("seen", "why", "do")
    assert (error.seen, error.why, error.do) == ("seen", "why", "do")
