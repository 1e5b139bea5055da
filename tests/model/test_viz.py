import glob
import os
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bevformer import draw, draw_camera, viz
from bevformer.boxes import corners
from bevformer.data.dataset import ground_truth
from bevformer.data.infos import load_infos
from bevformer.data.store import open_store
from bevformer.errors import DataError
from bevformer.look import CLASS_COLOURS, STYLES
from bevformer.results import ResultsWriter, format_sample
from bevformer.types import CLASSES, Detections

WHITE = (255, 255, 255)


def val_infos(synth):
    return load_infos(os.path.join(synth.infos, "nuscenes_infos_temporal_val.pkl")).infos


def truth_entries(info):
    boxes, labels = ground_truth(info, viz.TRUTH_RANGE_M)
    return format_sample(
        Detections(torch.tensor(boxes), torch.full((len(boxes),), 0.9), torch.tensor(labels)), info
    )


@pytest.fixture
def results(synth, tmp_path):
    with ResultsWriter(str(tmp_path / "results_nusc.json")) as writer:
        for info in val_infos(synth):
            writer.add(info["token"], truth_entries(info))
    return str(tmp_path / "results_nusc.json")


def arguments(synth, out, *more):
    return ["--data-root", synth.root, "--infos", synth.infos, "--out", str(out), *more]


def pixels_of(image, colour):
    if isinstance(colour, str):
        colour = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return int((np.abs(image[..., ::-1].astype(int) - colour).max(axis=-1) < 24).sum())


def test_a_picture_per_sample_with_the_colours_of_the_classes(synth, results, heard, tmp_path):
    tokens = [info["token"] for info in val_infos(synth)[:2]]
    viz.main(arguments(synth, tmp_path / "out", "--results", results, "--sample", *tokens), heard)
    told = heard.results[0]["pictures"]
    assert [one["sample"] for one in told] == tokens and told[0]["scene"] == "scene-0103"
    assert told[0]["true_boxes"] == told[0]["predicted_boxes"] > 10
    image = cv2.imread(told[0]["path"])
    assert image.shape == (760, 2424, 3)
    legend, panels = image[-38:], image[58:-38]
    for name in CLASSES:
        assert pixels_of(legend, CLASS_COLOURS[name]) > 100
    assert pixels_of(panels, CLASS_COLOURS["car"]) > 2000
    assert pixels_of(panels[:324, 8:584], WHITE) > 200  # dashes on a photograph
    assert sorted(os.listdir(tmp_path / "out")) == [os.path.basename(one["path"]) for one in told]


def test_without_results_only_truth_is_drawn(synth, heard, tmp_path):
    viz.main(arguments(synth, tmp_path, "--count", "1"), heard)
    (told,) = heard.results[0]["pictures"]
    assert told["predicted_boxes"] is None
    bev = cv2.imread(told["path"])[58:-38, 1760:]
    assert sum(pixels_of(bev, colour) for colour in CLASS_COLOURS.values()) < 100


def test_low_scores_are_left_out(synth, results, heard, tmp_path):
    viz.main(arguments(synth, tmp_path, "--results", results, "--count", "1", "--score", "0.95"), heard)
    assert heard.results[0]["pictures"][0]["predicted_boxes"] == 0


def test_without_lidar_files_the_picture_is_still_made(synth, tmp_path):
    info = dict(val_infos(synth)[0], lidar_path="samples/LIDAR_TOP/none.bin")
    picture = viz.make_picture(info, None, open_store([synth.root]), "scene", 0.3)
    assert picture.points_P3 is None and draw.draw(picture).shape == (760, 2424, 3)


def test_a_test_split_has_no_truth_to_draw(synth):
    info = {key: value for key, value in val_infos(synth)[0].items() if not key.startswith("gt_")}
    assert viz.make_picture(info, [], open_store([synth.root]), "scene", 0.3).truth is None


def test_one_sample_takes_less_than_a_second_and_a_half(synth):
    info = val_infos(synth)[0]
    picture = viz.make_picture(info, truth_entries(info), open_store([synth.root]), "scene", 0.3)
    draw.draw(picture)
    start_s = time.process_time()
    draw.draw(picture)
    assert time.process_time() - start_s < 1.5


@pytest.mark.parametrize(
    "more, seen",
    [
        (["--sample", "abc"], "no such sample: abc"),
        (["--results", "none.json"], "no results file at none.json"),
        (["--infos", "none"], "none"),
    ],
)
def test_wrong_names_are_refused_in_a_sentence(synth, heard, tmp_path, more, seen):
    with pytest.raises(DataError, match=seen):
        viz.main(arguments(synth, tmp_path / "out", *more), heard)
    assert not (tmp_path / "out").exists()


def test_results_of_other_samples_are_refused():
    infos = [{"token": "a"}, {"token": "b"}]
    with pytest.raises(DataError, match="r.json has no results for sample b"):
        viz.choose(infos, {"a": []}, ["b"], 4, "r.json", "i.pkl")
    with pytest.raises(DataError, match="no sample of r.json is in i.pkl"):
        viz.choose(infos, {"c": []}, [], 4, "r.json", "i.pkl")


def test_samples_are_spread_when_none_is_named():
    infos = [{"token": str(i)} for i in range(9)]
    assert [info["token"] for info in viz.choose(infos, None, [], 3, "", "i.pkl")] == ["0", "4", "8"]
    assert len(viz.choose(infos, None, [], 20, "", "i.pkl")) == 9


@pytest.fixture
def two_scenes():
    names = {"t1": "scene-0001", "t2": "scene-0002"}
    return names, [{"token": str(i), "scene_token": "t%d" % (1 + i % 2), "timestamp": -i} for i in range(6)]


def test_a_scene_is_taken_by_name_or_token_in_the_order_of_time(two_scenes):
    names, infos = two_scenes
    for scene in ("scene-0002", "t2"):
        assert [i["token"] for i in viz.of_scene(infos, scene, names, True, "i.pkl")] == ["5", "3", "1"]
    assert viz.of_scene(infos, None, names, False, "i.pkl") == infos


@pytest.mark.parametrize(
    "scene, seen, do",
    [(None, "i.pkl has 2", "--scene scene-0001"), ("scene-9", "no scene scene-9 in i.pkl", "--split")],
)
def test_a_scene_that_is_not_one_is_refused(two_scenes, scene, seen, do):
    names, infos = two_scenes
    with pytest.raises(DataError, match=seen) as caught:
        viz.of_scene(infos, scene, names, True, "i.pkl")
    assert do in caught.value.do


@pytest.mark.parametrize("name", ["scene.mp4", "scene.gif"])
def test_a_scene_becomes_one_film(synth, results, heard, tmp_path, name):
    path = str(tmp_path / name)
    more = ["--results", results, "--scene", "scene-0103", "--video", path, "--dpi", "40"]
    viz.main(arguments(synth, tmp_path, *more), heard)
    told = heard.results[0]
    assert (told["video"], told["frames"], told["scene"]) == (path, 3, "scene-0103")
    film = cv2.VideoCapture(path)
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and film.get(cv2.CAP_PROP_FPS) == pytest.approx(2)
    assert film.read()[1].shape == (304, 970, 3)
    assert sorted(os.listdir(tmp_path)) == sorted([name, "results_nusc.json"])


def test_a_film_of_frames_without_results_is_refused(synth, heard, tmp_path):
    first, *_ = val_infos(synth)
    with ResultsWriter(str(tmp_path / "r.json")) as writer:
        writer.add(first["token"], truth_entries(first))
    more = ["--results", str(tmp_path / "r.json"), "--video", str(tmp_path / "s.mp4")]
    with pytest.raises(DataError, match="r.json has no results for sample"):
        viz.main(arguments(synth, tmp_path, *more), heard)
    assert os.listdir(tmp_path) == ["r.json"]


def test_on_paper_the_dots_are_those_of_two_columns(synth, results, heard, tmp_path):
    more = ["--results", results, "--count", "1", "--style", "paper", "--dpi", "150"]
    viz.main(arguments(synth, tmp_path / "out", *more), heard)
    with Image.open(heard.results[0]["pictures"][0]["path"]) as image:
        assert image.size[0] / 150 == pytest.approx(STYLES["paper"].width_in, abs=0.02)
        assert image.info["dpi"][0] == pytest.approx(150, abs=0.1)


@pytest.mark.parametrize(
    "more",
    [
        ["--out", "o", "--video", "film.avi"],
        ["--out", "o", "--fps", "0"],
        ["--out", "o", "--dpi", "9000"],
        ["--out", "o", "--scene", "a", "--sample", "b"],
        [],
    ],
)
def test_wrong_usage_is_exit_code_two(more, capsys):
    with pytest.raises(SystemExit) as caught:
        viz.parse(["--data-root", "r", "--infos", "i", *more])
    assert caught.value.code == 2 and capsys.readouterr().err


def camera_ahead(width=160, height=90):
    """Looks along y of the lidar frame from its origin; focal length 100 pixels."""
    lidar2cam = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    intrinsic = np.array([[100.0, 0, width / 2], [0, 100, height / 2], [0, 0, 1]])
    return draw_camera.Camera(np.zeros((height, width, 3), np.uint8), lidar2cam, intrinsic)


def box(x, y, z=0.0, heading=np.pi / 2, w=2.0, length=4.0, h=2.0):
    return corners(np.array([[x, y, z, w, length, h, -heading - np.pi / 2, 0, 0]]))


def test_a_box_ahead_is_projected_by_its_corners():
    segments, owners = draw_camera.project_edges(box(0, 12), camera_ahead())
    assert segments.shape == (12, 2, 2) and set(owners) == {0}
    np.testing.assert_allclose(segments.min(axis=(0, 1)), [80 - 10, 45 - 10])  # the near face, 10 m away
    np.testing.assert_allclose(segments.max(axis=(0, 1)), [80 + 10, 45 + 10])


def test_edges_are_cut_at_the_near_plane():
    segments, _ = draw_camera.project_edges(box(1.5, 0.5), camera_ahead())
    assert len(segments) == 8  # the far face and the four edges towards the camera; the face behind is gone
    assert np.isfinite(segments).all()
    assert segments[..., 0].max() == pytest.approx(80 + 100 * 2.5 / draw_camera.NEAR_M)


@pytest.mark.parametrize("x, y", [(0, -12), (60, 12)])
def test_boxes_behind_or_beside_are_left_out(x, y):
    assert len(draw_camera.project_edges(box(x, y), camera_ahead())[0]) == 0


def test_the_shaded_face_is_the_front_one():
    front, _ = draw_camera.project_fronts(box(0, 12, heading=-np.pi / 2), camera_ahead())  # facing the camera
    back, _ = draw_camera.project_fronts(box(0, 12, heading=np.pi / 2), camera_ahead())
    assert np.ptp(front[0, :, 0]) == pytest.approx(20) and np.ptp(back[0, :, 0]) == pytest.approx(200 / 14)


def test_the_real_keyframe_is_drawn(shared, heard, tmp_path):
    folder = shared / "data" / "nuscenes_keyframe"
    if not folder.is_dir():
        pytest.skip(f"no real keyframe at {folder}")
    (infos,) = glob.glob(str(folder / "*.pkl"))
    viz.main(["--data-root", str(folder), "--infos", infos, "--out", str(tmp_path)], heard)
    (told,) = heard.results[0]["pictures"]
    assert told["true_boxes"] > 40 and pixels_of(cv2.imread(told["path"])[58:382, 592:1168], WHITE) > 1000
