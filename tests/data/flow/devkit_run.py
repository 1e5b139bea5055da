"""The nuscenes-devkit, unmodified, on a data root: `devkit_run.py DATAROOT VERSION SPLIT`; prints JSON.

Run as a program by the flow tests, as another user than theirs.
"""

import json
import sys
import tempfile
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.splits import create_splits_scenes


def truth(nusc, split):
    """The ground truth of a split as a submission."""
    names, results = create_splits_scenes()[split], {}
    for sample in nusc.sample:
        if nusc.get("scene", sample["scene_token"])["name"] not in names:
            continue
        rows = [nusc.get("sample_annotation", token) for token in sample["anns"]]
        results[sample["token"]] = [
            dict(
                sample_token=sample["token"],
                translation=row["translation"],
                size=row["size"],
                rotation=row["rotation"],
                velocity=nusc.box_velocity(row["token"])[:2].tolist(),
                detection_name=category_to_detection_name(row["category_name"]),
                detection_score=1.0,
                attribute_name="".join(nusc.get("attribute", t)["name"] for t in row["attribute_tokens"]),
            )
            for row in rows
        ]
    return results


def score(nusc, split):
    meta = {"use_" + kind: kind == "camera" for kind in ("camera", "lidar", "radar", "map", "external")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps(dict(meta=meta, results=truth(nusc, split))))
        judge = DetectionEval(
            nusc, config_factory("detection_cvpr_2019"), str(path), split, folder, verbose=False
        )
        metrics, _ = judge.evaluate()
    return [metrics.serialize()["mean_ap"], metrics.serialize()["nd_score"]]


def main(root, version, split):
    nusc, can = NuScenes(version, dataroot=root, verbose=False), NuScenesCanBus(dataroot=root)
    pictures = [Path(root) / row["filename"] for row in nusc.sample_data if row["fileformat"] == "jpg"]
    if not (Path(root) / "samples").exists():  # where nothing is mounted they stay in the archives
        pictures = []
    masks = [nusc.get("map", log["map_token"])["mask"].mask(0.0) for log in nusc.log[:1]]
    found = dict(
        scenes=len(nusc.scene),
        samples=len(nusc.sample),
        picture_bytes=sum(len(path.read_bytes()) for path in pictures),
        pose_messages=sum(len(can.get_messages(scene["name"], "pose")) for scene in nusc.scene),
        mask=list(masks[0].shape),
        score=score(nusc, split),
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
