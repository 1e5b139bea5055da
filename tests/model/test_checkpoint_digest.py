"""A checkpoint proves what it holds; what was changed on the way is not trained on."""

import pytest
import torch
from torch import nn

from bevformer.checkpoint import load_checkpoint, save_checkpoint
from bevformer.checkpoint_read import read_file
from bevformer.errors import CheckpointError


def saved(folder, dtype=torch.float32):
    model = nn.Linear(4, 3).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4, dtype=dtype)).sum().backward()
    optimizer.step()
    path = str(folder / "iter_1.pth")
    save_checkpoint(path, model, optimizer, {"iter": 1, "seed": 3})
    return path, read_file(path)


def test_whole_file_is_read_and_its_digest_stays_out_of_the_meta(tmp_path):
    path, content = saved(tmp_path, torch.bfloat16)
    assert set(content["meta"]["digest"]) == {"state_dict", "optimizer", "place"}
    assert load_checkpoint(path)["meta"] == {"iter": 1, "seed": 3}


@pytest.mark.parametrize(
    "spoil, part",
    [
        (lambda content: content["state_dict"]["weight"][0].add_(1), "state_dict is"),
        (lambda content: content["optimizer"]["state"][0]["exp_avg"].add_(1), "optimizer is"),
        (lambda content: content["optimizer"]["param_groups"][0].update(lr=1.0), "optimizer is"),
        (lambda content: content["meta"].update(iter=2), "place is"),
    ],
)
def test_a_changed_part_is_named(tmp_path, spoil, part):
    path, content = saved(tmp_path)
    spoil(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is damaged: its " + part + " not what was written"):
        load_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_seen(tmp_path):
    path, content = saved(tmp_path)
    data = bytearray((tmp_path / "iter_1.pth").read_bytes())
    place = data.index(content["state_dict"]["weight"].numpy().tobytes())
    data[place] ^= 1
    (tmp_path / "iter_1.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged|broken"):
        load_checkpoint(path)


def test_weights_without_their_optimiser_still_prove_themselves(tmp_path):
    path, content = saved(tmp_path)
    del content["optimizer"]
    torch.save(content, path)
    assert "optimizer" not in load_checkpoint(path)
