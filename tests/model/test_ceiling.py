"""Where a driver never says that memory ran out, torch does."""

import platform
from types import SimpleNamespace

import pytest
import torch

from bevformer import ceiling

GIB = 1 << 30
GPU = torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch):
    """A GPU of 12 GiB, 10.5 of them free, in WSL 2; `set` is what torch was told."""
    found = SimpleNamespace(set=[])
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=12 * GIB))
    monkeypatch.setattr(cuda, "mem_get_info", lambda device: (10.5 * GIB, 12 * GIB), raising=False)
    monkeypatch.setattr(cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", lambda *told: found.set.append(told))
    return found


def test_in_wsl_no_more_than_what_is_free_can_be_had(card):
    assert "held to 10.0 of 12.0 GiB" in ceiling.hold(GPU)
    assert card.set == [(pytest.approx(10 / 12), GPU)]


def test_a_torch_that_cannot_ask_gets_most_of_it(card, monkeypatch):
    monkeypatch.delattr(torch.cuda, "mem_get_info")
    assert "held to 10.8 of 12.0 GiB" in ceiling.hold(GPU)


@pytest.mark.parametrize("device", [GPU, torch.device("cpu")], ids=str)
def test_elsewhere_nothing_is_held(card, monkeypatch, device):
    if device.type == "cuda":
        monkeypatch.setattr(platform, "release", lambda: "6.1.0-25-amd64")
    assert ceiling.hold(device) is None and card.set == []


@pytest.mark.parametrize(
    "free_b, reserved_b, most_b", [(0, 0, 0), (GIB, 2 * GIB, 2.5 * GIB), (14 * GIB, 0, 12 * GIB)]
)
def test_what_is_held_already_counts_and_the_ceiling_stays_in_the_card(free_b, reserved_b, most_b):
    assert ceiling.ceiling_b(12 * GIB, free_b, reserved_b) == most_b


@pytest.mark.gpu
def test_beyond_the_ceiling_torch_says_that_memory_ran_out(monkeypatch):
    from bevformer.memory import is_out_of_memory

    monkeypatch.setattr(ceiling, "spills", lambda: True)
    monkeypatch.setattr(ceiling, "MARGIN_B", torch.cuda.get_device_properties(0).total_memory - (64 << 20))
    monkeypatch.setattr(ceiling, "_free_b", lambda device: torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.empty_cache()
    try:
        ceiling.hold(GPU)
        with pytest.raises(RuntimeError) as found:
            torch.empty(128 << 20, dtype=torch.uint8, device=GPU)
        assert is_out_of_memory(found.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
