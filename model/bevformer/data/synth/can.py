"""CAN bus messages of a scene, in the layout of the nuScenes CAN bus expansion (read by NuScenesCanBus).

Times are `utime` in microseconds; `pose` is 50 Hz, the inertial unit 100 Hz.  All of it follows from the
ego's motion: speed along x, yaw rate about z, gravity in the accelerations.
"""

from typing import Any, Dict, List

import numpy as np

from .rig import yaw_quaternion
from .world import World

GRAVITY = 9.81
LEAD_S = 0.25  # the messages begin before the first sample, as on the real cars
WHEEL_BASE_M, WHEEL_RADIUS_M, STEERING_RATIO = 2.588, 0.305, 16.0
RATE_HZ = {
    "ms_imu": 100,
    "pose": 50,
    "steeranglefeedback": 100,
    "vehicle_monitor": 2,
    "zoe_veh_info": 100,
    "zoesensors": 100,
}
_META_NAMES = {
    "ms_imu": "MS_IMU",
    "pose": "POSE",
    "steeranglefeedback": "SteerAngleFeedback",
    "vehicle_monitor": "VEHICLE_MONITOR",
    "zoe_veh_info": "ZOE_VEH_INFO",
    "zoesensors": "ZoeSensors",
}


def can_messages(world: World, duration_s: float) -> Dict[str, Any]:
    """message name -> what its JSON file holds (`meta` and `route` included)."""
    messages: Dict[str, Any] = {}
    for number, (name, rate_hz) in enumerate(sorted(RATE_HZ.items())):
        first = -LEAD_S + 0.0013 * number
        times_s = np.arange(int((duration_s + 2 * LEAD_S) * rate_hz) + 1) / rate_hz + first
        messages[name] = [_MAKERS[name](world, float(t)) for t in times_s]
    meta = {_META_NAMES[name]: _statistics(rows) for name, rows in sorted(messages.items())}
    messages["meta"] = meta
    s = np.arange(-20.0, 60.0, 0.5)
    x, y, _ = world.road.place(s, np.zeros(len(s)))
    messages["route"] = [[float(a), float(b)] for a, b in zip(x, y)]
    return messages


def _motion(world: World, t: float) -> Dict[str, float]:
    speed = world.ego.speed_at(t)
    rate = world.road.curvature * speed
    return {
        "utime": world.start_us + int(round(t * 1e6)),
        "speed": speed,
        "yaw_rate": rate,
        "sideways": speed * rate,
        "steering": float(np.arctan(WHEEL_BASE_M * world.road.curvature)),
        "rpm": speed / (2 * np.pi * WHEEL_RADIUS_M) * 60.0,
    }


def _acceleration(world: World, motion: Dict[str, float]) -> List[float]:
    return [world.ego.accel_mps2, motion["sideways"], GRAVITY]


def _pose(world: World, t: float) -> Dict[str, Any]:
    motion, (x, y, yaw) = _motion(world, t), world.ego_pose(t)
    return {
        "accel": _acceleration(world, motion),
        "orientation": yaw_quaternion(yaw),
        "pos": [x, y, 0.0],
        "rotation_rate": [0.0, 0.0, motion["yaw_rate"]],
        "utime": motion["utime"],
        "vel": [motion["speed"], 0.0, 0.0],
    }


def _imu(world: World, t: float) -> Dict[str, Any]:
    motion, yaw = _motion(world, t), world.ego_pose(t)[2]
    return {
        "linear_accel": _acceleration(world, motion),
        "q": yaw_quaternion(yaw),
        "rotation_rate": [0.0, 0.0, motion["yaw_rate"]],
        "utime": motion["utime"],
    }


def _steering(world: World, t: float) -> Dict[str, Any]:
    motion = _motion(world, t)
    return {"utime": motion["utime"], "value": motion["steering"] * STEERING_RATIO}


def _monitor(world: World, t: float) -> Dict[str, Any]:
    motion = _motion(world, t)
    return {
        "available_distance": 100,
        "battery_level": 80,
        "brake": 0,
        "brake_switch": 1,
        "gear_position": 7,
        "left_signal": 0,
        "rear_left_rpm": motion["rpm"],
        "rear_right_rpm": motion["rpm"],
        "right_signal": 0,
        "steering": float(np.rad2deg(motion["steering"])) * STEERING_RATIO,
        "steering_speed": 0.0,
        "throttle": 50,
        "utime": motion["utime"],
        "vehicle_speed": motion["speed"] * 3.6,
        "yaw_rate": float(np.rad2deg(motion["yaw_rate"])),
    }


def _vehicle(world: World, t: float) -> Dict[str, Any]:
    motion = _motion(world, t)
    steer = float(np.rad2deg(motion["steering"])) * STEERING_RATIO
    return {
        "FL_wheel_speed": motion["rpm"],
        "FR_wheel_speed": motion["rpm"],
        "RL_wheel_speed": motion["rpm"],
        "RR_wheel_speed": motion["rpm"],
        "left_solar": 0,
        "longitudinal_accel": world.ego.accel_mps2,
        "meanEffTorque": 0.0,
        "odom": 0,
        "odom_speed": motion["speed"] * 3.6,
        "pedal_cc": 10.0,
        "regen": 0.0,
        "requestedTorqueAfterProc": 0.0,
        "right_solar": 0,
        "steer_corrected": steer,
        "steer_offset_can": 0.0,
        "steer_raw": steer,
        "transversal_accel": motion["sideways"],
        "utime": motion["utime"],
    }


def _sensors(world: World, t: float) -> Dict[str, Any]:
    motion = _motion(world, t)
    return {
        "brake_sensor": 0.18,
        "steering_sensor": 0.19 + 0.01 * motion["steering"],
        "throttle_sensor": 0.3,
        "utime": motion["utime"],
    }


_MAKERS = {
    "ms_imu": _imu,
    "pose": _pose,
    "steeranglefeedback": _steering,
    "vehicle_monitor": _monitor,
    "zoe_veh_info": _vehicle,
    "zoesensors": _sensors,
}


def _statistics(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The entry of a message in `meta`."""
    span_s = (rows[-1]["utime"] - rows[0]["utime"]) / 1e6
    out = {}
    for name in sorted(rows[0]):
        values = np.array([row[name] for row in rows], np.float64)
        steps = np.diff(values, axis=0)
        out[name] = {
            "max": float(values.max()),
            "max_diff": float(steps.max()),
            "mean": float(values.mean()),
            "mean_diff": float(steps.mean()),
            "min": float(values.min()),
            "min_diff": float(steps.min()),
            "std": float(values.std()),
            "std_diff": float(steps.std()),
        }
    return {
        "message_count": len(rows),
        "message_freq": len(rows) / span_s,
        "timespan": span_s,
        "var_stats": out,
    }
