"""The two conventions, the two centres, the corners."""

import numpy as np
import pytest
import torch

from bevformer import boxes


@pytest.fixture
def some():
    rng = np.random.RandomState(0)
    return np.concatenate(
        [rng.randn(30, 3) * 20, rng.uniform(0.5, 5, (30, 3)), rng.uniform(-3, 3, (30, 3))], 1
    )


def test_the_conventions_are_each_others_inverse(some):
    np.testing.assert_allclose(boxes.new_to_legacy(boxes.legacy_to_new(some)), some, atol=1e-14)


def test_a_car_that_drives_forward_faces_plus_y_in_both_conventions():
    legacy = [[0, 10, 0, 2.0, 4.5, 1.5, -np.pi]]  # heading = -yaw - pi/2 = pi/2
    new = boxes.legacy_to_new(legacy)[0]
    np.testing.assert_allclose(new[3:7], [4.5, 2.0, 1.5, np.pi / 2])
    np.testing.assert_allclose(boxes.heading_of(legacy), [np.pi / 2])
    np.testing.assert_allclose(boxes.corners(legacy)[0].max(0), [1.0, 12.25, 0.75])


def test_the_centres_differ_by_half_the_height(some):
    bottom = boxes.gravity_to_bottom(some)
    np.testing.assert_allclose(some[:, 2] - bottom[:, 2], some[:, 5] / 2)
    np.testing.assert_allclose(boxes.bottom_to_gravity(bottom), some)


def test_corners_equal_the_devkits(some):
    from nuscenes.utils.data_classes import Box
    from pyquaternion import Quaternion

    for box, found in zip(some, boxes.corners(some)):
        turn = Quaternion(axis=[0, 0, 1], radians=-box[6] - np.pi / 2)
        expected = Box(list(box[:3]), list(box[3:6]), turn).corners().T
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_the_edges_join_corners_one_side_apart():
    corners = boxes.corners([[0, 0, 0, 2.0, 4.0, 1.0, 0.3]])[0]
    lengths = sorted(round(float(np.linalg.norm(corners[a] - corners[b])), 6) for a, b in boxes.BOX_EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [4.0] * 4


def test_points_inside_are_those_between_the_faces(some):
    corners = boxes.corners(some)
    centre = some[:, None, :3]
    assert boxes.points_inside((centre + 0.99 * (corners - centre))[7], some)[7].all()
    assert not boxes.points_inside((centre + 1.01 * (corners - centre))[7], some)[7].any()


def test_tensors_and_float32_are_taken_and_the_input_is_left_alone(some):
    before = torch.tensor(some, dtype=torch.float32)
    after = boxes.gravity_to_bottom(before)
    assert after.dtype == np.float32 and before[0, 2] == np.float32(some[0, 2])


def test_angles_are_wrapped_into_half_a_turn_either_way():
    np.testing.assert_allclose(boxes.wrap_angle([0, np.pi, -np.pi, 7.0]), [0, -np.pi, -np.pi, 7 - 2 * np.pi])


def test_no_boxes_are_fine():
    assert boxes.corners(np.zeros((0, 9))).shape == (0, 8, 3)
    assert boxes.points_inside(np.zeros((4, 3)), np.zeros((0, 7))).shape == (0, 4)
