"""State dicts against the key tables of the reference models."""

import json

import pytest

from bevformer.config import preset
from bevformer.detector import build_model


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_keys_shapes_and_gradients_are_the_references(shared, name):
    table = json.loads((shared / "facts" / f"state_dict_{name}.json").read_text())
    model = build_model(preset("bevformer_" + name))
    parameters = dict(model.named_parameters())
    ours = [
        [
            key,
            list(value.shape),
            str(value.dtype)[6:],
            "param" if key in parameters else "buffer",
            parameters[key].requires_grad if key in parameters else None,
        ]
        for key, value in model.state_dict().items()
    ]
    theirs = [row[:4] + [row[4] if row[3] == "param" else None] for row in table["rows"]]
    assert ours == theirs
    assert sum(p.numel() for p in model.parameters()) == table["n_params"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == table["n_trainable"]
