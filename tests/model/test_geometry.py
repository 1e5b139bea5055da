"""Quaternions and rigid transforms against pyquaternion."""

import numpy as np
import pytest
from pyquaternion import Quaternion

from bevformer.data import geometry


@pytest.fixture
def quaternions():
    return np.random.RandomState(0).randn(20, 4)


def test_rotation_matrices_equal_pyquaternions(quaternions):
    expected = [Quaternion(q).rotation_matrix for q in quaternions]
    np.testing.assert_allclose(geometry.rotation_matrix(quaternions), expected, atol=1e-14)


def test_products_and_inverses_equal_pyquaternions(quaternions):
    a, b = quaternions[:10], quaternions[10:]
    expected = [(Quaternion(p) * Quaternion(q)).elements for p, q in zip(a, b)]
    np.testing.assert_allclose(geometry.multiply(a, b), expected, atol=1e-14)
    undone = geometry.multiply(geometry.inverse(a), geometry.unit_quaternion(a))
    np.testing.assert_allclose(undone, np.tile([1.0, 0, 0, 0], (10, 1)), atol=1e-14)


def test_the_boxes_yaw_is_pyquaternions_and_differs_from_the_heading_of_a_tilted_box(quaternions):
    expected = [Quaternion(q).yaw_pitch_roll[0] for q in quaternions]
    np.testing.assert_allclose(geometry.tait_bryan_yaw(quaternions), expected, atol=1e-13)
    assert np.abs(geometry.heading(quaternions) - expected).max() > 0.1


def test_flat_rotations_have_one_yaw():
    angles = np.linspace(-3.1, 3.1, 9)
    flat = np.stack([np.cos(angles / 2), 0 * angles, 0 * angles, np.sin(angles / 2)], axis=-1)
    np.testing.assert_allclose(geometry.heading(flat), angles, atol=1e-14)
    np.testing.assert_allclose(geometry.tait_bryan_yaw(flat), angles, atol=1e-14)


@pytest.mark.parametrize("noise", (0.0, 1e-7))
def test_a_matrix_gives_its_quaternion_back_also_when_rounded(quaternions, noise):
    for q in np.concatenate([geometry.unit_quaternion(quaternions), np.eye(4)]):
        rounded = geometry.rotation_matrix(q) + noise
        found = geometry.quaternion_of(rounded)
        assert min(np.abs(found - q).max(), np.abs(found + q).max()) < 1e-14 + 10 * noise


def test_a_rigid_transform_and_its_inverse_cancel(quaternions):
    rng = np.random.RandomState(1)
    a2b = geometry.rigid(quaternions, rng.randn(20, 3))
    np.testing.assert_allclose(geometry.rigid_inverse(a2b) @ a2b, np.tile(np.eye(4), (20, 1, 1)), atol=1e-13)
    points = rng.randn(5, 3)
    np.testing.assert_allclose(geometry.apply(a2b[0], points)[2], (a2b[0] @ [*points[2], 1])[:3], atol=1e-14)
