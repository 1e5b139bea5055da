"""What a training step makes the host wait for on a device, counted on a device that is not there."""

import numpy as np
import pytest

pytest.importorskip("torch.utils._python_dispatch", reason="torch >= 2.0 lets a test watch every operator")

import torch  # noqa: E402
from ghost_device import DEVICE, Ghost, GhostDevice, NoLists, to_ghosts  # noqa: E402

from bevformer.amp import FULL, LossScale  # noqa: E402
from bevformer.config import override, preset  # noqa: E402
from bevformer.detector import build_model  # noqa: E402
from bevformer.nominal import image_size, nominal_sample  # noqa: E402
from bevformer.ops import mmcv_backend  # noqa: E402
from bevformer.optim import build_optimizer  # noqa: E402
from bevformer.step import Training, _update, backward  # noqa: E402

SMALL = ["head.num_query=20", "encoder.bev_h=12", "encoder.bev_w=10", "ops.attention=reference"]
CONFIG = override(preset("bevformer_micro"), SMALL)


def a_job(model):
    optimizer = build_optimizer(model, CONFIG.schedule, "loop")
    return Training(model, optimizer, None, None, CONFIG.schedule, 0, 1, LossScale(FULL))


def one_step(job, batch=2):
    sample = nominal_sample(CONFIG, image_size(CONFIG, (32, 48)))
    return _update(job, [backward(job, [sample] * batch, np.random.RandomState(0), 32.0)])


def test_a_step_waits_once_for_all_costs_and_once_for_terms_and_norm():
    torch.manual_seed(0)
    model = build_model(CONFIG).train()
    expected = one_step(a_job(model))
    torch.manual_seed(0)
    with GhostDevice() as device, NoLists() as lists:
        model = to_ghosts(build_model(CONFIG).train())
        found = one_step(a_job(model))
    assert device.waits == ["copy to the host"] * 2 and not lists.seen
    assert len(device.sent) < 160  # small ones, and the images
    assert found == {key: pytest.approx(value, rel=1e-3) for key, value in expected.items()}


def test_mmcvs_attention_sends_its_tables_without_waiting(monkeypatch):
    """Its operator stands in for itself; what the backend hands it is made on the device."""
    shapes_L, handed = ((3, 4), (2, 3)), []

    def operator(value, shapes, locations, weights):
        handed.append(shapes)
        out = value.sum((1, 3)) + (locations.sum() + weights.sum())
        return out[:, None, :, None].expand(-1, weights.shape[1], -1, value.shape[3]).flatten(2)

    monkeypatch.setattr(mmcv_backend, "ms_deform_attn", lambda device_type: operator)
    attend = mmcv_backend.load("cuda").deform_attn
    sizes = ((2, 18, 16), (2, 5, 2, 2), (2, 5, 2, 2, 4, 2), (2, 5, 2, 2, 4))
    given = [torch.randn(size) for size in sizes]
    with GhostDevice() as device, NoLists() as lists:
        value, points, offsets, logits = (Ghost(each) for each in given)
        found = attend(value, shapes_L, points, offsets, logits)
    assert not device.waits and not lists.seen and device.sent == [(2, 2), (2, 2)]
    assert handed[0].numbers.tolist() == [list(hw) for hw in shapes_L]
    assert torch.equal(found.numbers, attend(given[0], shapes_L, *given[1:]))


def test_the_count_sees_what_makes_the_host_wait():
    with GhostDevice() as device, NoLists() as lists:
        x = torch.arange(4.0).to(DEVICE, non_blocking=True)
        assert isinstance(x, Ghost) and not device.waits
        bool((x > 1).all()), x[x > 1], x.cpu(), torch.ones(2).to(DEVICE), torch.tensor([1.0], device=DEVICE)
    waits = ["_local_scalar_dense", "index with a mask", "copy to the host", "copy to the device"]
    assert [each.replace("is_nonzero", "_local_scalar_dense") for each in device.waits] == waits
    assert lists.seen == ["tensor"]
