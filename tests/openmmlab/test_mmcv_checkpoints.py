"""mmcv's own reader, without the bundled one: what its runner writes comes back, what could run does not."""

import logging
import os

import numpy as np
import pytest
import torch
from mmcv.runner import CheckpointLoader, EpochBasedRunner, EvalHook, load_checkpoint
from mmcv.runner.checkpoint import load_from_local
from torch.utils.data import DataLoader

by_list = pytest.mark.skipif(
    not hasattr(torch.serialization, "safe_globals"), reason="this torch reads whatever a file holds"
)
NUMBERS = (np.bool_, np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, np.complex64)


@pytest.fixture(autouse=True)
def mmcvs_own_reader(monkeypatch):
    """Other tests of this process may have imported bevformer.mm.register, which puts ours in its place."""
    monkeypatch.setattr(CheckpointLoader, "_schemes", {**CheckpointLoader._schemes, "": load_from_local})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, batch):
        return self.layer(batch)

    def train_step(self, batch, optimizer):
        loss = self(batch).square().sum()
        return {"loss": loss, "num_samples": len(batch), "log_vars": {"loss": float(loss)}}


class Ones(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.ones(3)

    def evaluate(self, results, logger=None):
        return {"score": np.mean([0.25, 0.5])}


def make_runner(folder):
    net, quiet = Net(), logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    made = EpochBasedRunner(
        net, optimizer=optimizer, work_dir=str(folder), logger=quiet, meta={"seed": 0}, max_epochs=2
    )
    made.register_training_hooks({"policy": "step", "step": [1]}, {"grad_clip": {"max_norm": 35}})
    made.register_checkpoint_hook({"interval": 1, "meta": {"CLASSES": ("car",), "config": "a = 1"}})
    evaluate = EvalHook(
        DataLoader(Ones()), save_best="score", rule="greater", test_fn=lambda model, loader: [0] * 4
    )
    made.register_hook(evaluate, priority="LOW")
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = make_runner(tmp_path_factory.mktemp("run"))
    made.run([DataLoader(Ones(), batch_size=2)], [("train", 1)])
    return made


def read(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")


@pytest.mark.parametrize("file", ["epoch_1.pth", "epoch_2.pth", "best_score_epoch_1.pth"])
def test_a_checkpoint_of_the_runner_is_loaded(trained, file):
    net = Net()
    content = load_checkpoint(net, os.path.join(trained.work_dir, file), map_location="cpu", logger="silent")
    assert all(torch.equal(content["state_dict"][name], here) for name, here in net.state_dict().items())
    assert content["meta"]["seed"] == 0 and "optimizer" in content


def test_a_runner_resumes_with_the_best_score_so_far(trained, tmp_path):
    again = make_runner(tmp_path)
    again.resume(os.path.join(trained.work_dir, "epoch_2.pth"))
    assert (again.epoch, again.iter) == (2, 4)
    score = again.meta["hook_msgs"]["best_score"]
    assert type(score) is np.float64 and score == 0.375
    for one, two in zip(again.optimizer.state.values(), trained.optimizer.state.values()):
        assert torch.equal(one["exp_avg"], two["exp_avg"])


class Elsewhere:
    """A number as a machine of the other byte order writes it."""

    def __init__(self, number):
        self.number = np.array(number, np.dtype(type(number)).newbyteorder("S"))

    def __reduce__(self):
        return np.float64().__reduce__()[0], (self.number.dtype, self.number.tobytes())


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_kind_of_number_comes_back(kind, tmp_path):
    torch.save({"meta": [kind(1), Elsewhere(kind(1))]}, str(tmp_path / "a.pth"))
    found = read(tmp_path / "a.pth")["meta"]
    assert found == [kind(1), kind(1)] and {type(each) for each in found} == {kind}


@by_list
def test_a_number_of_another_numpy_is_the_same_number(tmp_path):
    """Its function moved from numpy.core to numpy._core; in the older format the name is plain text."""
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    torch.save({"best": np.float64(0.5)}, str(tmp_path / "a.pth"), _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    for name, other in ((old, new), (new, old)):
        (tmp_path / "b.pth").write_bytes(content.replace(other, name))
        assert name in (tmp_path / "b.pth").read_bytes() and read(tmp_path / "b.pth") == {"best": 0.5}


class Runs:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@by_list
def test_what_could_run_is_refused_in_words(tmp_path):
    torch.save({"state_dict": {}, "meta": Runs(tmp_path / "ran")}, str(tmp_path / "evil.pth"))
    with pytest.raises(Exception, match="evil.pth.*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1") as error:
        read(tmp_path / "evil.pth")
    assert "mkdir" in str(error.value) and not (tmp_path / "ran").exists()


class Forged:
    """A number whose dtype says that its bytes are an object's address: NumPy's own would follow it."""

    def __reduce__(self):
        return np.float64().__reduce__()[0], (self.Dtype(), b"ABCDEFGH")

    class Dtype:
        def __reduce__(self):
            fields = {"a": (np.dtype("f8"), 0)}
            return np.dtype, ("f8", False, True), (3, "<", None, ("a",), fields, 8, 8, 63)


@by_list
def test_no_state_of_a_dtype_reaches_numpy(tmp_path):
    torch.save({"meta": Forged()}, str(tmp_path / "a.pth"))
    found = read(tmp_path / "a.pth")["meta"]
    assert found == np.frombuffer(b"ABCDEFGH", "<f8")[0] and found.dtype.fields is None


@by_list
@pytest.mark.parametrize(
    "value", [np.ones(2), np.array([None]), np.str_("a")], ids=["array", "objects", "text"]
)
def test_more_than_numbers_is_left_to_whoever_trusts_it(value, tmp_path, monkeypatch):
    torch.save({"meta": value}, str(tmp_path / "a.pth"))
    with pytest.raises(Exception, match="a.pth.*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"):
        read(tmp_path / "a.pth")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert np.array_equal(read(tmp_path / "a.pth")["meta"], value)


@by_list
def test_torch_is_left_as_it_was(trained, tmp_path):
    path = os.path.join(trained.work_dir, "epoch_2.pth")
    before = set(torch.serialization.get_safe_globals())
    read(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path)
    mine = [np.dtype, np.float64().__reduce__()[0], type(np.dtype("f8"))]
    with torch.serialization.safe_globals(mine):
        read(path)
        assert set(torch.serialization.get_safe_globals()) == {*before, *mine}
