"""pip's failures as sentences, and where torch may come from."""

import installing
import pytest
from target_file import read_target

ABSENT = "ERROR: No matching distribution found for torch==2.13.0+cpu"
OFFLINE = "Failed to establish a new connection: [Errno -2] Name or service not known"
BAD_HASH = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
TORCH = read_target("cpu")[0]["torch"]
PYTHON = {"version": "3.11.7", "platform": "linux-x86_64"}


@pytest.mark.parametrize(
    "text, says, exit_code",
    [
        (BAD_HASH, "sha256 differs", 3),
        ("OSError: [Errno 28] No space left on device", "disk is full", 8),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] " + OFFLINE, "certificate", 3),
        (OFFLINE + "\n" + ABSENT, "cannot be reached", 3),
        (ABSENT, "lacks a locked package", 3),
        ("Segmentation fault", "The command failed", 3),
    ],
)
def test_the_cause_is_named_and_the_log_shown(text, says, exit_code):
    stop = installing.explain("/venv", "first line\n" + text)
    assert says in stop.seen and text.splitlines()[-1] in stop.seen
    assert stop.exit_code == exit_code and "/venv/bootstrap.log" in stop.do


def test_index_settings_of_the_user_stay_and_other_destinations_go():
    kept = installing.clean_environment(
        {"PIP_INDEX_URL": "https://mirror", "PIP_TARGET": "/x", "PYTHONPATH": "/y"}
    )
    assert kept["PIP_INDEX_URL"] == "https://mirror" and kept["PIP_USER"] == "0"
    assert "PIP_TARGET" not in kept and "PYTHONPATH" not in kept


@pytest.fixture
def pip(monkeypatch):
    """Plays pip's answers and keeps what it was asked."""

    class Pip(list):
        answers = [(0, "")]

        def __call__(self, venv, *arguments):
            self.append(list(arguments))
            return self.answers[len(self) - 1]

    played = Pip()
    monkeypatch.setattr(installing, "try_pip", played)
    return played


def test_torch_comes_hashed_from_where_pip_is_configured(pip):
    torch = installing.install_torch("/venv", TORCH, "torch.txt", PYTHON)
    assert torch["hashed"] and torch["source"] == "pip's own configuration"
    assert pip == [["--only-binary", ":all:", "--require-hashes", "-r", "torch.txt"]]


def test_torch_comes_from_pytorchs_cpu_index_otherwise(pip):
    pip.answers = [(1, ABSENT), (0, "")]
    torch = installing.install_torch("/venv", TORCH, "torch.txt", PYTHON)
    assert torch["source"] == TORCH["index"] and TORCH["index"] in pip[1]


def test_another_python_gets_the_exact_build_unhashed(pip):
    torch = installing.install_torch("/venv", TORCH, "torch.txt", dict(PYTHON, version="3.12.1"))
    assert not torch["hashed"] and pip[0][-1] == "torch==2.13.0+cpu"


def test_a_wrong_hash_is_not_papered_over_by_the_other_source(pip):
    pip.answers = [(1, BAD_HASH)]
    with pytest.raises(installing.Stop, match="sha256 differs"):
        installing.install_torch("/venv", TORCH, "torch.txt", PYTHON)
    assert len(pip) == 1


def test_torch_that_is_nowhere_is_a_sentence(pip):
    pip.answers = [(1, ABSENT), (1, OFFLINE)]
    with pytest.raises(
        installing.Stop, match=r"torch==2.13.0\+cpu for Python 3.11 on linux-x86_64"
    ) as caught:
        installing.install_torch("/venv", TORCH, "torch.txt", PYTHON)
    assert "find-links" in caught.value.do and caught.value.exit_code == 3
