"""Upstream's data set for mmdet3d's builders: queues of frames for training, single frames for a video.

Read and checked as the bundled data set does it; images go through mmdet3d's pipeline.
"""

import difflib
import inspect
import os
import warnings
from typing import Any, Dict, List, Mapping, Optional, Sequence

import mmdet3d
import numpy as np
import torch
from mmcv.parallel import DataContainer
from mmdet3d.datasets import NuScenesDataset

from ..data.can_bus import queue_differences
from ..data.dataset import all_can_bus, all_lidar2img
from ..data.infos import load_infos
from ..data.infos_boxes import to_new
from ..data.store import open_store
from ..errors import ConfigError
from ..results import ResultsWriter, format_sample
from ..talk import Talk
from ..types import CAMERAS, CLASSES, Detections
from .boxes import NEW, convention_of, from_mmdet3d, of_results
from .names import check_pipeline

BOXES = convention_of(mmdet3d.__version__)
OF_A_LOADER = ("samples_per_gpu", "workers_per_gpu", "persistent_workers", "shuffle")  # upstream's data.val


class CustomNuScenesDataset(NuScenesDataset):  # type: ignore[misc]
    """`data_infos` hold boxes in the convention of the mmdet3d that is here; notes on what was converted are
    warnings.
    """

    def __init__(
        self,
        queue_length: int = 4,
        bev_size: Sequence[int] = (200, 200),
        overlap_test: bool = False,
        pipeline: Optional[Sequence[Any]] = None,
        classes: Optional[Sequence[str]] = None,
        **options: Any,
    ) -> None:
        """Other arguments are those of NuScenesDataset.  bev_size is upstream's, which never reads it.

        Raises ConfigError for what cannot be honoured, DataError for files that cannot be used.
        """
        if overlap_test:
            raise ConfigError("overlap_test = True cannot be honoured", "The score is nuScenes' own.")
        if classes is None or tuple(classes) != CLASSES:
            raise ConfigError(
                "classes = %r cannot be honoured" % (classes,),
                "The bundled model has nuScenes' ten in upstream's order: %s." % ", ".join(CLASSES),
            )
        if options.get("box_type_3d", "LiDAR") != "LiDAR":
            raise ConfigError(
                "box_type_3d = %r cannot be honoured" % options["box_type_3d"], "It is 'LiDAR'."
            )
        if type(queue_length) is not int or queue_length < 1:
            raise ConfigError("queue_length = %r cannot be honoured" % (queue_length,), "A queue has frames.")
        _require_known(options)
        check_pipeline(pipeline or ())
        self.queue_length, self.bev_size, self.overlap_test = queue_length, bev_size, overlap_test
        super().__init__(pipeline=pipeline, classes=classes, **options)

    def load_annotations(self, ann_file: Any) -> List[Dict[str, Any]]:
        """Frames in the order of time.  `ann_file`: a path, or the open file that newer mmdet3d hand over."""
        infos = load_infos(os.fspath(getattr(ann_file, "name", ann_file)))
        for note in infos.notes:
            warnings.warn("%s: %s" % (infos.source, note), stacklevel=2)
        every = self.load_interval
        self.metadata, self.version = dict(infos.metadata), infos.version
        self._lidar2img_FN44 = all_lidar2img(infos)[::every]
        self._can_bus_F18 = all_can_bus(infos)[::every]
        frames = list(infos.infos)[::every]
        return to_new(frames, {})[0] if BOXES == NEW else frames

    def get_data_info(self, index: int) -> Dict[str, Any]:
        """A frame before its pipeline, with absolute can_bus."""
        info = self.data_infos[index]
        root = self.data_root or ""
        found = {
            key: info.get(key)
            for key in (
                "sweeps ego2global_translation ego2global_rotation lidar2ego_translation lidar2ego_rotation"
                " scene_token frame_idx"
            ).split()
        }
        found.update(
            sample_idx=info["token"],
            prev_idx=info.get("prev"),
            next_idx=info.get("next"),
            pts_filename=os.path.join(root, info["lidar_path"]),
            timestamp=info["timestamp"] / 1e6,
            can_bus=self._can_bus_F18[index].copy(),
            img_filename=[os.path.join(root, info["cams"][name]["data_path"]) for name in CAMERAS],
            lidar2img=list(self._lidar2img_FN44[index]),
        )
        if not self.test_mode:
            found["ann_info"] = self.get_ann_info(index)
        return found

    def queue_indices(self, index: int) -> List[int]:
        """`queue_length` frames, sorted, `index` last: of those before it one is dropped at random."""
        earlier = list(range(index - self.queue_length, index))
        del earlier[np.random.randint(self.queue_length)]
        return [max(0, each) for each in earlier] + [index]

    def prepare_train_data(self, index: int) -> Optional[Dict[str, Any]]:
        """A queue; None where a frame has no valid box, and another one is drawn."""
        return self.queue(self.queue_indices(index))

    def queue(self, indices: Sequence[int]) -> Optional[Dict[str, Any]]:
        """The frames as one sample: img (T, N, 3, H, W), img_metas {place: meta}, boxes of the last."""
        frames = []
        for index in indices:
            frame = super().prepare_train_data(index)
            if frame is None:
                return None
            frames.append(frame)
        tokens = [str(self.data_infos[index]["scene_token"]) for index in indices]
        can_bus = queue_differences(self._can_bus_F18[list(indices)], tokens)
        metas: Dict[int, Dict[str, Any]] = {}
        for place, frame in enumerate(frames):
            same = place > 0 and tokens[place] == tokens[place - 1] and len(self) > 1
            metas[place] = dict(frame["img_metas"].data, can_bus=can_bus[place], prev_bev_exists=same)
        last = frames[-1]
        images = torch.stack([frame["img"].data for frame in frames])
        last["img"] = DataContainer(images, cpu_only=False, stack=True)
        last["img_metas"] = DataContainer(metas, cpu_only=True)
        return dict(last)

    def _format_bbox(self, results: Sequence[Any], jsonfile_prefix: Optional[str] = None) -> str:
        """Writes results_nusc.json, as `bevrepro eval` does; results: one of each frame, in order."""
        convention = _convention(results)
        folder = jsonfile_prefix or "."
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "results_nusc.json")
        with ResultsWriter(path) as writer:
            for info, found in zip(self.data_infos, results):
                boxes = from_mmdet3d(found["boxes_3d"], convention)
                detections = Detections(boxes, found["scores_3d"], found["labels_3d"])
                writer.add(info["token"], format_sample(detections, info))
        return path

    def _evaluate_single(
        self,
        result_path: str,
        logger: Any = None,
        metric: str = "bbox",
        result_name: str = "pts_bbox",
    ) -> Dict[str, float]:
        """nuScenes' own score, under upstream's names."""
        from .. import devkit

        talk, tokens = Talk(False), [str(info["token"]) for info in self.data_infos]
        nusc = devkit.load_ground_truth(open_store([self.data_root]), self.version, talk, frozenset(tokens))
        split = devkit.split_of(nusc, tokens)[0]
        folder = os.path.dirname(os.path.abspath(result_path))
        detail: Mapping[str, Any] = devkit.score(nusc, result_path, tokens, split, folder, talk)["detail"]
        return {
            key.replace("pts_bbox", result_name, 1): float("nan") if value is None else float(value)
            for key, value in detail.items()
        }


def _require_known(options: Mapping[str, Any]) -> None:
    """Python's own error for an argument too many would not say whose it is.  DataError: no infos file."""
    known = list(inspect.signature(NuScenesDataset.__init__).parameters)[1:]
    strange = [name for name in options if name not in known]
    if strange and all(name in OF_A_LOADER for name in strange):
        raise ConfigError(
            "%s: not of a data set but of its loader" % ", ".join(strange),
            "mmdet's train_detector takes it out of data.val; build_dataset alone does not.",
            "Before it: config.data.val.pop(%r)" % strange[0],
        )
    if strange:
        near = difflib.get_close_matches(strange[0], [*known, "queue_length", "bev_size"], 2, 0.6)
        raise ConfigError(
            "CustomNuScenesDataset has no argument %s" % ", ".join(strange),
            "Close to it: %s." % ", ".join(near) if near else "",
            "Its arguments are queue_length, bev_size, overlap_test and those of mmdet3d's NuScenesDataset.",
        )
    ann_file = options.get("ann_file")
    if isinstance(ann_file, str) and not os.path.exists(ann_file):
        load_infos(ann_file)


def _convention(results: Sequence[Any]) -> str:
    """That of the mmdet3d that is here, unless the sizes of the cars say that another one wrote them."""
    seen = of_results(results, CLASSES.index("car"))
    if seen is None or seen == BOXES:
        return BOXES
    warnings.warn(
        "these results hold boxes as mmdet3d %s 1.0 has them, by the sizes of their cars; they are converted "
        "(mmdet3d %s is here)" % ("<" if BOXES == NEW else ">=", mmdet3d.__version__),
        stacklevel=2,
    )
    return seen
