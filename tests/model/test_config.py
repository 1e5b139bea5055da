import json

import pytest

from bevformer.config import PRESETS, from_dict, override, preset, to_dict
from bevformer.errors import ConfigError


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_configuration_survives_json(name):
    assert from_dict(json.loads(json.dumps(to_dict(preset(name))))) == preset(name)


def test_overrides_reach_nested_fields():
    config = override(
        preset("bevformer_tiny"), ["head.num_query=300", "schedule.lr=1", "encoder.rotate_center=None"]
    )
    assert (config.head.num_query, config.schedule.lr, config.encoder.rotate_center) == (300, 1.0, None)


@pytest.mark.parametrize(
    "option",
    [
        "head.num_querys=3",
        "head=3",
        "head.num_query.x=3",
        "head.num_query=many",
        "head.num_query",
        "data.grid_mask=1",
    ],
)
def test_a_wrong_override_is_refused_by_name(option):
    with pytest.raises(ConfigError) as caught:
        override(preset("bevformer_tiny"), [option])
    assert option.split("=")[0].split(".")[0] in str(caught.value)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="bevformer_micro"):
        preset("bevformer_huge")
