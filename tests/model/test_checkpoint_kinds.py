"""What a file looks like, told from its keys and shapes alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bevformer.key_tables import preset_tables, shapes_of
from bevformer.kinds import compare, describe_bevformer, diagnose, explain_shape

sys.path.insert(0, str(Path(__file__).parent))
import fake_weights as fake  # noqa: E402


def verdict(state):
    return diagnose(shapes_of(state), preset_tables())


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: fake.fcos3d("img_"), "fcos3d", "FCOS3D .* ResNet-101 with DCNv2"),
        (lambda: fake.fcos3d(""), "fcos3d", "FCOS3D"),
        (lambda: fake.imagenet(), "imagenet", "ImageNet weights of a ResNet-50"),
        (lambda: fake.with_ema_twin(fake.detector("bevformer_tiny")), "ema", "643 of 1286 keys"),
        (lambda: {"ema_" + k: v for k, v in fake.imagenet().items()}, "ema", "EMA twin alone"),
        (lambda: fake.bevformer_v2(), "bevformer_v2", "BEVFormer v2 .*fcos3d_bbox_head"),
        (lambda: {"model." + k: v for k, v in fake.detector("bevformer_tiny").items()}, "prefixed",
         "bevformer_tiny .* 'model.' before every key"),
        (lambda: {**fake.detector("bevformer_base"), **fake.expanded({"occ_head.a": (1,)})},
         "derived", "with the modules occ_head"),
        (lambda: fake.expanded({"pts_bbox_head.a": (1,), "img_backbone.b": (1,)}), "detector", "DETR3D"),
        (lambda: fake.expanded({"pts_voxel_encoder.a": (1,)}), "lidar", "lidar"),
        (lambda: fake.expanded({"encoder.a": (1,), "encoder.b": (1,)}), "unknown", "encoder 2"),
    ],
)  # fmt: skip
def test_kinds_of_files_are_told_apart(make, kind, words):
    found = verdict(make())
    assert found.kind == kind
    assert re.search(words, found.text), found.text


@pytest.mark.parametrize("name", ["tiny", "small", "base", "micro"])
def test_every_preset_is_recognised(name):
    found = verdict(fake.detector("bevformer_" + name))
    assert found.preset == "bevformer_" + name


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_presets_are_recognised_from_the_references_own_keys(shared, name):
    rows = json.loads((shared / "facts" / f"state_dict_{name}.json").read_text())["rows"]
    shapes = {key: tuple(shape) for key, shape, *_ in rows if not key.endswith("num_batches_tracked")}
    assert diagnose(shapes, preset_tables()).preset == "bevformer_" + name


def test_a_changed_preset_is_described_and_its_nearest_named():
    shapes = dict(preset_tables()["bevformer_small"])
    shapes["pts_bbox_head.query_embedding.weight"] = (300, 512)
    found = diagnose(shapes, preset_tables())
    assert found.preset is None and found.nearest == "bevformer_small"
    assert (
        "ResNet-101 with DCNv2, 1 feature level, 150x150 BEV cells of 256 channels, 3 encoder layers"
        in found.text
    )


def test_what_stands_in_a_bevformer_is_read_from_its_shapes():
    said = describe_bevformer(preset_tables()["bevformer_base"])
    parts = ["ResNet-101 with DCNv2", "4 feature levels", "200x200 BEV cells of 256 channels"]
    assert said == ", ".join([*parts, "6 encoder layers", "10 classes"])


@pytest.mark.parametrize(
    "key, theirs, ours, words",
    [
        ("pts_bbox_head.cls_branches.3.6.weight", (10, 256), (5, 256), "10 classes, not 5"),
        ("pts_bbox_head.bev_embedding.weight", (2500, 256), (22500, 256), "a BEV grid of 2500 cells"),
        ("pts_bbox_head.bev_embedding.weight", (2500, 128), (2500, 256), "128 channels"),
        ("pts_bbox_head.positional_encoding.row_embed.weight", (50, 128), (150, 128), "50 rows"),
        ("pts_bbox_head.query_embedding.weight", (900, 512), (300, 512), "900 object queries"),
        (
            "img_neck.lateral_convs.0.conv.weight",
            (256, 512, 1, 1),
            (256, 2048, 1, 1),
            "level of 512 channels",
        ),
        ("img_backbone.conv1.weight", (64, 3, 7, 7), (64, 3, 3, 3), ""),
    ],
)
def test_shapes_are_explained_where_they_say_something(key, theirs, ours, words):
    assert words in explain_shape(key, theirs, ours) and bool(words) == bool(explain_shape(key, theirs, ours))


def test_counters_of_batch_norm_are_not_missed():
    assert compare({}, {"bn1.num_batches_tracked": ()}) and not compare({}, {"bn1.weight": (1,)})


def test_the_diagnosis_runs_without_torch():
    code = "import sys; sys.modules['torch'] = None; import bevformer.kinds, bevformer.checkpoint_scan"
    model = str(Path(__file__).parents[2] / "model")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": model})
