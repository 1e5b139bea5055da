"""The 13 tables of the nuScenes schema, from what was recorded of each scene."""

from typing import Dict, List, Optional

from .recording import Recording
from .rig import CHANNELS, LIDAR, LIDAR_IN_EGO_M, LIDAR_YAW, Camera, yaw_quaternion
from .shot_rows import ShotRows, Table, Tokens, neighbours
from .world import World

CATEGORIES = {  # our class -> the schema's category
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "construction_vehicle": "vehicle.construction",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "barrier": "movable_object.barrier",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
}
OTHER_CATEGORIES = (
    "animal",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "static_object.bicycle_rack",
    "vehicle.bus.bendy",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
)
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
VISIBILITY = (("1", "v0-40", 0.0), ("2", "v40-60", 0.4), ("3", "v60-80", 0.6), ("4", "v80-100", 0.8))
WEATHER_WORDS = {"clear": "", "rain": ", rain", "night": ", night"}  # as descriptions of real scenes say it
MOVING_MPS = 0.2  # the threshold the benchmark's converters use


def attribute_of(kind: str, speed_mps: float) -> Optional[str]:
    """The one attribute a box has, if any; it follows from its motion."""
    moves = speed_mps > MOVING_MPS
    if kind in ("motorcycle", "bicycle"):
        return "cycle.with_rider" if moves else "cycle.without_rider"
    if kind == "pedestrian":
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if kind in ("barrier", "traffic_cone"):
        return None
    if moves:
        return "vehicle.moving"
    return "vehicle.stopped" if kind == "bus" else "vehicle.parked"


def build_tables(
    recordings: List[Recording],
    cameras: List[Camera],
    recipe: str,
    map_files: Dict[str, str],
    with_boxes: bool = True,
) -> Dict[str, Table]:
    """Table name -> rows.  `map_files` gives each location's PNG, relative to the data root.

    The test set comes without boxes: `instance` and `sample_annotation` are empty there.
    """
    token = Tokens(recipe)
    tables: Dict[str, Table] = {
        "attribute": [
            {
                "token": token("attribute", name),
                "name": name,
                "description": name.replace(".", ": ").replace("_", " "),
            }
            for name in ATTRIBUTES
        ],
        "category": [
            {
                "token": token("category", name),
                "name": name,
                "description": name.replace(".", ", ").replace("_", " "),
            }
            for name in sorted(tuple(CATEGORIES.values()) + OTHER_CATEGORIES)
        ],
        "sensor": [
            {
                "token": token("sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == LIDAR else "camera",
            }
            for channel in CHANNELS
        ],
        "visibility": [
            {
                "token": level,
                "level": name,
                "description": "visible share of the whole object: %s %%" % name[1:],
            }
            for level, name, _ in VISIBILITY
        ],
    }
    for name in (
        "log",
        "calibrated_sensor",
        "scene",
        "sample",
        "sample_data",
        "ego_pose",
        "instance",
        "sample_annotation",
        "map",
    ):
        tables[name] = []
    for recording in recordings:
        _add_scene(tables, recording, cameras, token)
        for thing in range(recording.world.num_things if with_boxes else 0):
            _add_instance(tables, recording, thing, token)
    for location, filename in sorted(map_files.items()):
        logs = [log["token"] for log in tables["log"] if log["location"] == location]
        tables["map"].append(
            {
                "category": "semantic_prior",
                "token": token("map", location),
                "filename": filename,
                "log_tokens": logs,
            }
        )
    return tables


def _add_scene(tables: Dict[str, Table], recording: Recording, cameras: List[Camera], token: Tokens) -> None:
    name = recording.world.name
    count = len(recording.keyframes)
    vehicle, date = recording.logfile.split("-")[0], "-".join(recording.logfile.split("-")[1:4])
    tables["log"].append(
        {
            "token": token("log", name),
            "logfile": recording.logfile,
            "vehicle": vehicle,
            "date_captured": date,
            "location": recording.location,
        }
    )
    tables["scene"].append(
        {
            "token": token("scene", name),
            "log_token": token("log", name),
            "nbr_samples": count,
            "first_sample_token": token("sample", name, 0),
            "last_sample_token": token("sample", name, count - 1),
            "name": name,
            "description": _describe(recording.world) + WEATHER_WORDS[recording.weather],
        }
    )
    _add_calibration(tables, name, cameras, token)
    shots = ShotRows(recording, cameras, token)
    for index, keyframe in enumerate(recording.keyframes):
        tables["sample"].append(
            {
                "token": token("sample", name, index),
                "timestamp": keyframe.timestamp_us,
                **neighbours(lambda at: token("sample", name, at), index, count),
                "scene_token": token("scene", name),
            }
        )
        for shot in keyframe.shots:
            shots.add(tables, shot, index, is_key_frame=True)
    for index, shot in recording.sweeps:
        shots.add(tables, shot, index, is_key_frame=False)


def _describe(world: World) -> str:
    bend = (
        "straight"
        if abs(world.road.curvature) < 0.004
        else "left bend"
        if world.road.curvature > 0
        else "right bend"
    )
    return "Synthetic street, %s%s" % (bend, ", crossing ahead" if world.road.cross_s is not None else "")


def _add_calibration(tables: Dict[str, Table], name: str, cameras: List[Camera], token: Tokens) -> None:
    for camera in cameras:
        tables["calibrated_sensor"].append(
            {
                "token": token("calibrated_sensor", name, camera.channel),
                "sensor_token": token("sensor", camera.channel),
                "translation": list(camera.position_ego_m),
                "rotation": camera.quaternion,
                "camera_intrinsic": camera.intrinsic_33.tolist(),
            }
        )
    tables["calibrated_sensor"].append(
        {
            "token": token("calibrated_sensor", name, LIDAR),
            "sensor_token": token("sensor", LIDAR),
            "translation": list(LIDAR_IN_EGO_M),
            "rotation": yaw_quaternion(LIDAR_YAW),
            "camera_intrinsic": [],
        }
    )


def _add_instance(tables: Dict[str, Table], recording: Recording, thing: int, token: Tokens) -> None:
    world, count = recording.world, len(recording.keyframes)
    kind, (length, width, height) = world.boxes.kinds[thing], world.boxes.size_N3[thing]
    attribute = attribute_of(kind, float(world.boxes.speed_N[thing]))

    def name_at(at: int) -> str:
        return token("sample_annotation", world.name, thing, at)

    tables["instance"].append(
        {
            "token": token("instance", world.name, thing),
            "category_token": token("category", CATEGORIES[kind]),
            "nbr_annotations": count,
            "first_annotation_token": name_at(0),
            "last_annotation_token": name_at(count - 1),
        }
    )
    for index, keyframe in enumerate(recording.keyframes):
        x, y, z, yaw = (float(v) for v in keyframe.poses_N4[thing])
        tables["sample_annotation"].append(
            {
                "token": name_at(index),
                "sample_token": token("sample", world.name, index),
                "instance_token": token("instance", world.name, thing),
                "visibility_token": [
                    level for level, _, low in VISIBILITY if keyframe.visible_N[thing] >= low
                ][-1],
                "attribute_tokens": [token("attribute", attribute)] if attribute else [],
                "translation": [x, y, z],
                "size": [float(width), float(length), float(height)],
                "rotation": yaw_quaternion(yaw),
                **neighbours(name_at, index, count),
                "num_lidar_pts": int(keyframe.lidar_points_N[thing]),
                "num_radar_pts": 0,
            }
        )
