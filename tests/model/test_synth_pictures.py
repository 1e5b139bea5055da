"""The pictures and the lidar agree with the boxes, checked with the devkit's own projection."""

import cv2
import numpy as np
import pytest
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import view_points
from pyquaternion import Quaternion

from bevformer.data.synth.layout import RECIPES, make_world
from bevformer.data.synth.lidar import INSIDE_M, scan
from bevformer.data.synth.paint import PALETTE
from bevformer.data.synth.render import SceneRenderer, make_view
from bevformer.data.synth.rig import LIDAR_IN_EGO_M, cameras
from bevformer.data.synth.world import Boxes, Ego, Road, World

CAMERAS = {camera.channel: camera for camera in cameras(0.25)}
TIMES_S = np.arange(3) * 0.5


def world_of(*rows, speed=0.0):
    """A street with boxes (kind, size lwh, s, d, bottom, turn) and nothing else."""
    kinds, size, s, d, bottom, turn = zip(*rows)
    count = len(rows)
    boxes = Boxes(
        tuple(kinds), np.array(size, float), np.array(s, float), np.array(d, float), np.array(bottom, float),
        np.array(turn, float), np.full(count, speed), np.ones((count, 3)),
    )  # fmt: skip
    return World("scene-0061", Road((300.0, 80.0), 0.7, 0.01, None), Ego(2.0, 0.1), boxes, count, 0.3, 0)


def renderer(world, *channels):
    return SceneRenderer(world, {c: make_view(CAMERAS[c]) for c in channels}, np.random.RandomState(0))


def project(world, index, channel, t):
    """(2, 8) pixels of a box's corners, through the devkit's classes and the tables' quaternions."""
    x, y, z, yaw = world.box_poses(t)[index]
    length, width, height = world.boxes.size_N3[index]
    box = Box([x, y, z], [width, length, height], Quaternion(axis=[0, 0, 1], angle=yaw))
    ego_x, ego_y, ego_yaw = world.ego_pose(t)
    camera = CAMERAS[channel]
    box.translate(-np.array([ego_x, ego_y, 0.0]))
    box.rotate(Quaternion(axis=[0, 0, 1], angle=ego_yaw).inverse)
    box.translate(-np.array(camera.position_ego_m))
    box.rotate(Quaternion(camera.quaternion).inverse)
    return view_points(box.corners(), camera.intrinsic_33, normalize=True)[:2]


@pytest.mark.parametrize(
    "channel, s, d",
    [("CAM_FRONT", 14, 0.5), ("CAM_FRONT_LEFT", 8, 9), ("CAM_BACK", -11, 1), ("CAM_BACK_RIGHT", -4, -11)],
)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_a_box_is_drawn_where_the_devkit_projects_it(channel, s, d, t):
    """It hovers, so that it casts no shadow; the pixels that change are its own."""
    world, empty = (world_of(("car", (4, 2, 1.5), s, d, low, 0.4), speed=0.8) for low in (1.1, 90.0))
    drawn, ground = (renderer(w, channel).render(channel, t)[0].astype(int) for w in (world, empty))
    changed = np.abs(drawn - ground).sum(axis=2) > 24
    hull = cv2.convexHull(np.round(project(world, 0, channel, t).T * 16 - 8).astype(np.int32))
    expected = cv2.fillConvexPoly(np.zeros(changed.shape, np.uint8), hull, 1, shift=4) > 0
    assert expected.sum() > 150
    assert (changed & expected).sum() / (changed | expected).sum() > 0.9


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_a_box_has_the_colour_of_its_class(kind):
    world = world_of((kind, RECIPES[kind].size_m, 9.0, 1.0, 0.03, 0.5))
    picture = renderer(world, "CAM_FRONT").render("CAM_FRONT", 0.0)[0]
    hull = cv2.convexHull(np.round(project(world, 0, "CAM_FRONT", 0.0).T).astype(np.int32))
    inside = cv2.fillConvexPoly(np.zeros(picture.shape[:2], np.uint8), hull, 1) > 0
    hue = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[inside]
    wanted = cv2.cvtColor(np.uint8([[PALETTE[kind][::-1]]]), cv2.COLOR_BGR2HSV)[0, 0]
    distance = np.abs((hue[:, 0].astype(int) - int(wanted[0]) + 90) % 180 - 90)
    assert ((distance < 8) & (hue[:, 1] > 60)).mean() > 0.4


def test_the_nearer_box_hides_the_farther_one():
    near, far = ("bus", (1, 6, 3), 9.0, 0.0, 0.03, 0.0), ("car", (4, 2, 1.5), 16.0, 0.0, 0.03, 0.0)
    counts = renderer(world_of(far, near), "CAM_FRONT").render("CAM_FRONT", 0.0)[1]
    assert counts[0, 0] == 0 and counts[0, 1] > 500  # none of the car's pixels is visible
    assert counts[1, 0] == counts[1, 1]
    swapped = renderer(world_of(near, far), "CAM_FRONT").render("CAM_FRONT", 0.0)[1]
    assert (swapped == counts[::-1]).all()


def test_faces_of_a_box_are_shaded_differently():
    world = world_of(("traffic_cone", (2, 2, 1.2), 8.0, 1.5, 0.03, 0.78))
    scene = renderer(world, "CAM_FRONT")
    lights = {round(scene._light(face, 0.78), 3) for face in range(5)}
    assert len(lights) >= 3


def test_what_is_behind_the_camera_is_not_drawn():
    world = world_of(("bus", (10, 3, 3), -12.0, 0.0, 0.03, 0.0))
    assert renderer(world, "CAM_FRONT").render("CAM_FRONT", 0.0)[1].sum() == 0


def test_a_box_that_reaches_behind_the_camera_is_drawn():
    world = world_of(("trailer", (30, 2, 3), 0.0, 4.0, 0.03, 0.0))
    assert renderer(world, "CAM_FRONT_LEFT").render("CAM_FRONT_LEFT", 0.0)[1][0, 0] > 10000


def test_lidar_returns_lie_just_inside_the_boxes():
    world = make_world("scene-0061", (80.0, 80.0), 0, TIMES_S, np.random.RandomState(3))
    sweep, t = scan(world, 0.5, np.random.RandomState(0)), 0.5
    x, y, yaw = world.ego_pose(t)
    turn = Quaternion(axis=[0, 0, 1], angle=yaw).rotation_matrix
    lidar2ego = Quaternion(axis=[0, 0, 1], angle=-np.pi / 2).rotation_matrix
    points = (sweep.points_P5[:, :3] @ lidar2ego.T + LIDAR_IN_EGO_M) @ turn.T + [x, y, 0.0]
    for pose, size, hits in zip(world.box_poses(t)[:22], world.boxes.size_N3, sweep.hits_N):
        local = (points - pose[:3]) @ Quaternion(axis=[0, 0, 1], angle=pose[3]).rotation_matrix
        depth = (size / 2 - np.abs(local)).min(axis=1)  # below the nearest face
        inside = depth > 0
        assert inside.sum() == hits
        assert np.allclose(depth[inside], INSIDE_M, atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_things_keep_their_range_and_their_distance(seed):
    world = make_world("scene-0061", (80.0, 80.0), 0, TIMES_S, np.random.RandomState(seed))
    for t in TIMES_S:
        x, y, _ = world.ego_pose(t)
        poses = world.box_poses(t)[: world.num_things]
        for kind, range_m in zip(world.boxes.kinds, np.hypot(poses[:, 0] - x, poses[:, 1] - y)):
            low, high = RECIPES[kind].range_m
            assert low <= range_m <= high
        gaps = np.hypot(*(poses[:, None, :2] - poses[None, :, :2]).transpose(2, 0, 1)) + 99 * np.eye(22)
        narrow = world.boxes.size_N3[:22, :2].min(axis=1) / 2
        assert (gaps > narrow[:, None] + narrow[None]).all()


def test_road_coordinates_and_back():
    road = Road((300.0, 80.0), -2.0, -0.012, None)
    s, d = np.random.RandomState(0).uniform(-40, 40, (2, 50))
    back = road.locate(*road.place(s, d)[:2])
    assert np.allclose(back, (s, d))
