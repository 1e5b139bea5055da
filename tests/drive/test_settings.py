"""A run's configuration against its recipe's: which settings differ, and which known mistake that is."""

import json

import pytest

from bevrepro import facts
from bevrepro.drive.causes import Evidence
from bevrepro.drive.recipes import EVAL, TRAIN, recipe, recipes
from bevrepro.drive.settings import at_test, differences, expected, given
from bevrepro.drive.verdict import judge
from bevrepro.probe.infos import Infos

TINY = recipe("bevformer_tiny")


def config(name="bevformer_tiny", **changes):
    """The preset's, with changes by dotted name."""
    made = json.loads(facts.row("presets", name)["config"])
    for key, value in changes.items():
        group, name = key.split("__")
        made[group][name] = value
    return made


@pytest.mark.parametrize("each", recipes(), ids=lambda each: each.id)
def test_the_recipes_own_configuration_has_no_difference(each):
    made = config(each.config)
    for key, value in given(each.cfg_options).items():
        group, name = key.split(".")
        made[group][name] = value
    assert differences(each, made) == () and len(expected(each)) > 50


@pytest.mark.parametrize("change, group", [
    ({"data__to_rgb": False}, "colours of the images"), ({"data__queue_length": 1}, "history lost"),
    ({"schedule__lr": 1e-4}, "batch and learning rate"), ({"head__num_query": 300}, "another setting"),
    ({"encoder__rotate_center": None}, "another setting"), ({"schedule__grad_clip": 5.0}, "another setting"),
])  # fmt: skip
def test_a_setting_belongs_to_a_known_mistake(change, group):
    (found,) = differences(TINY, config(**change))
    assert found.group == group and found.said.startswith(next(iter(change)).replace("__", "."))


def test_what_changes_nothing_is_no_difference():
    made = config(backbone__checkpoint_blocks=True, schedule__world_size=1, schedule__samples_per_gpu=8)
    made["encoder"]["a_new_field"] = 3
    assert differences(TINY, made) == ()


def test_an_evaluation_has_only_some_of_them():
    made = config(data__queue_length=1, schedule__lr=1.0, data__to_rgb=False, data__grid_mask=False)
    assert [each.key for each in at_test(differences(TINY, made))] == ["data.to_rgb"]


def test_options_are_read_as_they_are_typed():
    typed = ["a.b=False", "a.c=[1, 2]", "a.d=(1,)", "a.e=word", "a.f=1e-3"]
    assert given(typed) == {"a.b": False, "a.c": [1, 2], "a.d": [1], "a.e": "word", "a.f": 1e-3}


def test_the_settings_of_an_evaluation_are_judged():
    score = {"world_size": 1, "config": config(data__to_rgb=False)}
    (cause,) = judge(TINY, EVAL, Evidence(score=score)).causes
    assert (cause.name, cause.where) == ("colours of the images", "eval.json")
    (cause,) = judge(TINY, EVAL, Evidence(score={"config": config("bevformer_small")})).causes
    assert cause.name == "another model"


@pytest.mark.parametrize("kind", [EVAL, TRAIN])
@pytest.mark.parametrize("infos, cause", [
    (Infos("v", frames=6019, scenes=150, stretches=150), None),
    (Infos("v", frames=6019, scenes=150, stretches=180), None),  # two cars drive at the same time
    (Infos("v", frames=6019, scenes=6019, stretches=6019), "history lost"),
    (Infos("v", frames=6019, scenes=150, stretches=5000), "history lost"),
    (Infos("v", frames=3010, scenes=75), "incomplete data"),
    (Infos("v", frames=6019, version="v1.0-trainval"), None),
    (Infos("v", frames=81, scenes=2, version="v1.0-mini"), "another split"),
])  # fmt: skip
def test_scenes_have_to_be_whole_and_one_after_another(kind, infos, cause):
    causes = judge(TINY, kind, Evidence(infos={"val": infos})).causes
    assert [each.name for each in causes] == ([cause] if cause else [])


def test_an_evaluation_does_not_ask_for_the_frames_to_train_on():
    assert judge(TINY, EVAL, Evidence(infos={"train": Infos("t", frames=10)})).causes == ()
