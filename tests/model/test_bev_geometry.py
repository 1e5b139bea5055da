"""Hand-made motions and a hand-made camera: closed forms for shift, rotation and projection."""

import numpy as np
import pytest
import torch

from bevformer import geometry
from bevformer.types import FrameMeta

RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


def meta(dx=0.0, dy=0.0, yaw_rad=0.0, turn_deg=0.0, lidar2img=None):
    can_bus = np.zeros(18)
    can_bus[[0, 1, 16, 17]] = dx, dy, yaw_rad, turn_deg
    matrix = np.eye(4) if lidar2img is None else lidar2img
    return FrameMeta("s", "scene", 0.0, np.stack([matrix] * 6), can_bus, True, (100, 200))


def test_driving_straight_ahead_shifts_along_y_by_the_distance():
    # Heading east and moving east 10.24 m: straight ahead, a tenth of the 102.4 m map, along +y.
    assert geometry.bev_shift([meta(dx=10.24)], 50, 50, RANGE_M)[0] == pytest.approx([0, 0.1])


def test_sliding_to_the_right_shifts_along_x():
    assert geometry.bev_shift([meta(dy=-10.24)], 50, 50, RANGE_M)[0] == pytest.approx([0.1, 0], abs=1e-12)


def test_shift_does_not_depend_on_the_grid():
    moved = meta(dx=3.0, dy=-4.0, yaw_rad=0.7)
    assert geometry.bev_shift([moved], 25, 25, RANGE_M) == pytest.approx(
        geometry.bev_shift([moved], 200, 150, RANGE_M)
    )


@pytest.mark.parametrize("angle_deg", [0.0, 90.0, 180.0, -90.0])
def test_a_quarter_turn_about_the_grids_centre_is_a_permutation(angle_deg):
    bev = torch.arange(36.0).view(36, 1)
    turned = geometry.rotate_bev(bev, angle_deg, 6, 6, None).view(6, 6)
    wanted = torch.rot90(bev.view(6, 6), int(angle_deg // 90), (0, 1))  # counter-clockwise, row 0 on top
    assert torch.equal(turned, wanted)


def test_the_fixed_centre_turns_as_the_contract_says():
    angle, size = 3.7, 50
    bev = torch.arange(float(size * size)).view(-1, 1)
    turned = geometry.rotate_bev(bev, angle, size, size, (100.0, 100.0)).view(size, size)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    for i, j in [(0, 0), (10, 30), (49, 49), (25, 3)]:
        dx, dy = j + 0.5 - 100, i + 0.5 - 100
        column, row = int(np.floor(cos * dx - sin * dy + 100)), int(np.floor(sin * dx + cos * dy + 100))
        inside = 0 <= column < size and 0 <= row < size
        assert float(turned[i, j]) == (row * size + column if inside else 0)


def test_a_point_projects_where_it_does_by_hand():
    # 100 px focal length looking along lidar x, right = -y, down = -z, centre (100, 50); image 200x100.
    intrinsics = np.array([[100, 0, 100, 0], [0, 100, 50, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    points = torch.tensor([[[10.0, 2.0, 1.0]], [[-10.0, 0.0, 0.0]], [[10.0, 30.0, 0.0]]])
    uv, seen = geometry.project(points, [meta(lidar2img=intrinsics @ lidar2cam)])
    assert uv[0, 0, 0, 0].tolist() == pytest.approx([80 / 200, 40 / 100])
    assert seen[0, 0, :, 0].tolist() == [True, False, False]


def test_queries_run_along_x_first_and_heights_start_half_a_metre_up():
    points = geometry.pillar_points(2, 4, 4, RANGE_M, torch.device("cpu"))
    assert points[1, 0].tolist() == pytest.approx([-12.8, -25.6, -4.5])
    assert points[4, 3].tolist() == pytest.approx([-38.4, 25.6, 2.5])
