"""Initial weights: what is taken from which layout, what is counted, what is refused, what is recorded."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bevformer import init_weights, train
from bevformer.backbone import build_backbone
from bevformer.checkpoint import load_checkpoint
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import CheckpointError, ConfigError
from bevformer.init_weights import departures, initialise
from bevformer.neck import FPN
from bevformer.runstate import Options
from bevformer.types import GroundTruth

sys.path.insert(0, str(Path(__file__).parent))
import fake_weights as fake  # noqa: E402


class Camera(nn.Module):
    """The part of a preset's detector that sees images."""

    def __init__(self, name):
        super().__init__()
        config = preset(name)
        self.img_backbone = build_backbone(config.backbone)
        self.img_neck = FPN(config.neck, 256)


@pytest.fixture(scope="module")
def camera():
    """A fresh part of a preset; built once, its weights set to zero each time."""
    built = {}

    @torch.no_grad()
    def make(name):
        built.setdefault(name, Camera(name))
        for tensor in built[name].state_dict().values():
            tensor.zero_()
        return built[name]

    return make


@pytest.fixture
def file(tmp_path):
    def write(state, name="weights.pth"):
        torch.save(state, str(tmp_path / name))
        return str(tmp_path / name)

    return write


def test_imagenet_resnet50_fills_the_backbone_of_tiny(camera, file):
    model = camera("bevformer_tiny")
    report = initialise(model, file(fake.imagenet()))
    assert (report.backbone_loaded, report.backbone_total, report.ignored) == (265, 265, 2)
    assert report.kind == "imagenet" and report.coverage == 1.0
    assert float(model.img_backbone.layer4[2].conv3.weight.detach().min()) == 0.5
    assert float(model.img_neck.fpn_convs[0].conv.weight.detach().abs().max()) == 0.0


@pytest.mark.parametrize("prefix", ["img_", ""])
def test_fcos3d_fills_backbone_and_neck_of_base_in_both_layouts(camera, file, prefix):
    model = camera("bevformer_base")
    report = initialise(model, file({"state_dict": fake.fcos3d(prefix), "meta": {}}))
    assert (report.backbone_loaded, report.loaded, report.total) == (572, 586, 586)
    assert report.ignored == 4 and report.reshaped == ()  # the fifth level of its neck, and its head
    assert float(model.img_backbone.layer3[22].conv2.conv_offset.weight.detach().min()) == 0.5
    assert all(float(value.min()) == 0.5 for value in model.img_neck.state_dict().values())


def test_the_neck_of_small_takes_what_fits_as_upstream_does(camera, file):
    model = camera("bevformer_small")
    report = initialise(model, file(fake.fcos3d()))
    assert report.coverage == 1.0 and len(report.reshaped) == 1
    assert "a backbone level of 512 channels, not 2048" in report.reshaped[0]
    assert float(model.img_neck.lateral_convs[0].conv.weight.detach().max()) == 0.0
    assert float(model.img_neck.fpn_convs[0].conv.weight.detach().min()) == 0.5
    assert report.reshaped[0] in report.sentence() and "572 of 572 backbone tensors" in report.sentence()


def test_old_names_of_deformable_convolutions_are_understood(camera, file):
    state = {key.replace("conv2.conv_offset", "conv2_offset"): v for key, v in fake.fcos3d().items()}
    assert initialise(camera("bevformer_base"), file(state)).coverage == 1.0


@pytest.mark.parametrize("prefix", ["module.", "module.encoder_q.", "backbone."])
def test_backbones_under_a_prefix_are_found(camera, file, prefix):
    state = {prefix + key: value for key, value in fake.imagenet().items()}
    assert initialise(camera("bevformer_tiny"), file(state)).coverage == 1.0


@pytest.mark.parametrize(
    "state, wanted, seen, why",
    [
        (fake.imagenet, "bevformer_small", "of the 572 backbone tensors", "ResNet-50"),
        (lambda: {k: v for k, v in fake.fcos3d().items() if "conv_offset" not in k}, "bevformer_base",
         "covers 520 of the 572 .*conv_offset.weight.* and 48 more", "FCOS3D"),
        (fake.fcos3d, "bevformer_tiny", "another backbone: 307 of its tensors", "ResNet-101 with DCNv2"),
        (lambda: fake.expanded({"a.b": (1,)}), "bevformer_tiny", "covers 0 of the 265", "nothing known"),
    ],
)  # fmt: skip
def test_a_backbone_that_stays_random_is_refused(camera, file, state, wanted, seen, why):
    model = camera(wanted)
    with pytest.raises(CheckpointError, match=seen) as caught:
        initialise(model, file(state()))
    assert why in caught.value.why and "--allow-partial-init" in caught.value.do
    assert all(float(value.abs().sum()) == 0 for value in model.state_dict().values())


def test_partial_weights_are_taken_when_asked_for_and_counted(camera, file):
    state = {k: v for k, v in fake.fcos3d().items() if "conv_offset" not in k}
    record = initialise(camera("bevformer_base"), file(state), allow_partial=True).record()
    assert (record["backbone_loaded"], record["backbone_total"], record["coverage"]) == (520, 572, 0.909091)
    assert len(record["not_loaded"]) == 10 and json.loads(json.dumps(record)) == record
    with pytest.raises(CheckpointError, match="nothing in"):
        initialise(camera("bevformer_base"), file(fake.expanded({"a.b": (1,)})), allow_partial=True)


def test_broken_numbers_are_not_taken(camera, file):
    with pytest.raises(CheckpointError, match="not finite"):
        initialise(camera("bevformer_tiny"), file(fake.imagenet(value=float("nan"))))
    state = {**fake.imagenet(), "bn1.bias": torch.zeros(64, dtype=torch.int64)}
    with pytest.raises(CheckpointError, match="img_backbone.bn1.bias is int64"):
        initialise(camera("bevformer_tiny"), file(state))


@pytest.fixture(scope="module")
def micro():
    return build_model(preset("bevformer_micro"))


def test_a_published_detector_starts_a_fine_tuning_as_a_whole(micro, file):
    report = initialise(micro, file(fake.upstream_file(fake.detector("bevformer_micro"))))
    assert report.loaded == report.total and report.kind == "bevformer"


def test_a_detector_that_does_not_fit_needs_to_be_asked_for(file):
    model = build_model(override(preset("bevformer_micro"), ["head.num_classes=5"]))
    path = file(fake.detector("bevformer_micro"))
    with pytest.raises(CheckpointError, match="10 classes, not 5") as caught:
        initialise(model, path)
    assert caught.value.do.startswith("To start from what fits, add --allow-partial-init.")
    report = initialise(model, path, allow_partial=True)
    assert report.coverage == 1.0 and len(report.reshaped) == 4 and report.loaded == report.total - 4


RECIPE = {"kind": "imagenet", "backbone_total": 265, "backbone_loaded": 265, "surplus": []}
V1, V2 = (dict(RECIPE, sha256=start + "ff", known_as=start) for start in ("0676ba61", "11ad3fa6"))
FCOS3D, DETECTOR = (dict(RECIPE, sha256="ff", kind=kind) for kind in ("fcos3d", "bevformer"))


@pytest.mark.parametrize(
    "name, init, words",
    [
        ("bevformer_tiny", None, "backbone starts from random weights"),
        ("bevformer_micro", None, None),
        ("bevformer_tiny", V1, None),
        ("bevformer_tiny", V2, "starts from 11ad3fa6"),
        ("bevformer_tiny", dict(V1, sha256="ff", known_as=None), "ImageNet weights of unknown origin"),
        ("bevformer_tiny", FCOS3D, "other weights than the recipe"),
        ("bevformer_base", FCOS3D, None),
        ("bevformer_base", DETECTOR, "trained detector"),
        ("bevformer_micro", DETECTOR, "trained detector"),
        ("bevformer_base", dict(FCOS3D, backbone_loaded=260), "5 backbone tensors"),
        ("bevformer_base", dict(FCOS3D, surplus=["x"]), "parts of another backbone"),
    ],
)
def test_departures_from_the_recipes_initial_weights(name, init, words):
    found = departures(preset(name), init)
    assert len(found) == (words is not None)
    assert words is None or words in found[0][0]


def test_missing_initial_weights_say_that_the_published_numbers_are_out_of_reach():
    for name, file in (("tiny", "resnet50"), ("small", "r101_dcn_fcos3d"), ("base", "r101_dcn_fcos3d")):
        ((_, why),) = departures(preset("bevformer_" + name), None)
        assert file in why and "cannot match the published numbers" in why


# -- in a training ----------------------------------------------------------------------------------


class Tiny(nn.Module):
    """Stands for a detector: two layers with the detector's names."""

    def __init__(self):
        super().__init__()
        self.img_backbone = nn.Linear(3, 4)
        self.pts_bbox_head = nn.Linear(4, 1)

    def loss(self, sample, rng, mean_positives=None):
        return {"loss_cls": self.pts_bbox_head(self.img_backbone(sample)).square().mean()}


class Data:
    def labelled_indices(self):
        return [0, 1, 2]

    def draw_queue(self, index, rng):
        return [index]

    def truth(self, index):
        return GroundTruth(torch.zeros(1, 9), torch.zeros(1, dtype=torch.long))

    def load_queue(self, queue, rng):
        return torch.full((3,), float(queue[-1]))


MICRO = preset("bevformer_micro")
SHORT = replace(MICRO, schedule=replace(MICRO.schedule, max_steps=2, warmup_steps=0))


@pytest.fixture
def play(tmp_path, heard):
    def go(name, **options):
        return train.run(
            SHORT, Data(), Options(str(tmp_path / name), **options), heard, lambda config: Tiny()
        )

    return go


@pytest.fixture
def weights(file):
    state = {key: torch.full_like(value, 0.25) for key, value in Tiny().state_dict().items()}
    return file(state, "detector.pth")


def test_training_starts_from_the_file_and_records_it(play, weights, tmp_path, heard):
    play("run", init_from=weights)
    first = load_checkpoint(str(tmp_path / "run" / "iter_0.pth"))
    assert all(float(value.min()) == 0.25 for value in first["state_dict"].values())
    record = json.loads((tmp_path / "run" / "run.json").read_text())["init_from"]
    assert record == first["meta"]["init_from"] and record["path"] == weights
    assert record["sha256"] == init_weights.file_digest(weights) and record["coverage"] == 1.0
    assert "2 of 2 backbone tensors" in heard.notes[0]


def test_resuming_keeps_the_record_and_reads_nothing_again(play, weights, tmp_path, heard):
    whole = play("run", init_from=weights)
    (tmp_path / "run" / "iter_2.pth").rename(tmp_path / "run" / "iter_9.pth")
    (tmp_path / "run" / "latest.pth").unlink()
    (tmp_path / "run" / "latest.pth").symlink_to("iter_0.pth")
    assert play("run", init_from=weights, resume="auto")["weights_digest"] == whole["weights_digest"]
    assert any("was used when it began" in note for note in heard.notes)
    Path(weights).unlink()
    play("run", init_from=weights, resume="auto")
    play("run", resume="auto")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init_from"]["path"] == weights


def test_resuming_with_other_initial_weights_is_refused(play, weights, file):
    play("run")
    with pytest.raises(ConfigError, match="started from random weights"):
        play("run", init_from=weights, resume="auto")
    play("other", init_from=weights)
    another = file({key: torch.ones_like(value) for key, value in Tiny().state_dict().items()})
    with pytest.raises(ConfigError, match="started from .*detector.pth"):
        play("other", init_from=another, resume="auto")


@pytest.mark.parametrize("words", [["--init-from", "a", "--resume-from", "b"], ["--allow-partial-init"]])
def test_beginning_and_going_on_are_not_mixed(words):
    base = ["bevformer_tiny", "--data-root", "d", "--infos", "i", "--work-dir", "w"]
    with pytest.raises(SystemExit):
        train.parse([*base, *words])
    assert train.parse([*base, "--init-from", "a", "--resume", "auto"]).init_from == "a"
