"""Keyframes and training queues from prepared infos and a store of images.

Source: BEVFormer's `CustomNuScenesDataset` at 66b65f3 (facts: bevformer.md, Data and ego motion).
"""

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from bevformer import pixels
from bevformer.boxes import wrap_angle
from bevformer.config import Config, DataConfig
from bevformer.errors import DataError
from bevformer.types import CAMERAS, CLASSES, Frame, FrameMeta, GroundTruth, Sample

from . import transforms
from .can_bus import queue_differences, with_ego_pose
from .decoders import DECODERS, Decoder, open_decoder
from .distortion import Distortion, draw_distortion
from .geometry import rigid_inverse, rigid_of
from .infos import Info, Infos, image_name
from .shared_memory import empty_bytes
from .sizes import padded_hw, scaled_hw, scaled_lidar2img
from .store import Store

# nuScenes' principal points lie within 6 % of the middle; an image scaled to 80 % without its calibration is
# off by 10 % or more.
MAX_OFF_CENTRE = 0.1
CAMERA_POSE = ("sensor2lidar_rotation", "sensor2lidar_translation", "cam_intrinsic")
EGO_POSE = ("can_bus", "ego2global_translation", "ego2global_rotation")


class NuScenesQueue:
    """All frames of an infos file, in time order; `len` is their number.

    The only thing kept between calls is, with `cache_frames`, the images (for tiny sets: six of 256x144 are
    0.66 MB per frame).
    """

    def __init__(
        self,
        infos: Infos,
        store: Store,
        config: Config,
        training: bool,
        cache_frames: bool = False,
        device_type: str = "cpu",
    ) -> None:
        """device_type: where the model is, which decides where images are finished (`pixels.choose`).

        DataError names sample and camera of a calibration that is not finite; ConfigError says what of
        `ops` cannot be.
        """
        self.infos = infos
        self.store = store
        self.config = config
        self.training = training
        self._decoder = open_decoder(config.ops.decoder)
        self._data = pixels.data_after_decoding(config)
        self._raw = pixels.choose(config.ops.pixels, device_type) == "device"
        self._lidar2img_FN44 = all_lidar2img(infos)
        self._can_bus_F18 = all_can_bus(infos)
        # As they were read: what is computed of them differs in the last bit from one NumPy to another.
        self._poses_read = [infos.cam_numbers(key) for key in CAMERA_POSE] + [
            infos.numbers(key) for key in EGO_POSE
        ]
        self._position = _positions_in_scene(infos.texts("scene_token"))
        self._cache: Optional[Dict[int, Tensor]] = {} if cache_frames else None
        if training and "gt_boxes" not in infos.infos[0]:
            raise DataError(
                "%s holds no boxes" % infos.source,
                "Training needs them.",
                "Name the train file; the test split has none.",
            )

    def __len__(self) -> int:
        return len(self.infos.infos)

    def token_of(self, index: int) -> str:
        return str(self.infos.infos[index]["token"])

    def parts_of(self, index: int) -> Dict[str, bytes]:
        """Everything of a frame that a training sees, but the images: time, boxes and poses."""
        info = self.infos.infos[index]
        boxes = [np.ascontiguousarray(info[name], dtype=np.float64) for name in ("gt_boxes", "gt_velocity")]
        names = " ".join(map(str, info["gt_names"])).encode()
        return {
            "time": ("%s %s" % (info["scene_token"], info["timestamp"])).encode(),
            "boxes": b"".join(each.tobytes() for each in boxes)
            + np.asarray(info["valid_flag"], dtype=bool).tobytes()
            + names,
            "poses": b"".join(np.ascontiguousarray(each[index]).tobytes() for each in self._poses_read),
        }

    def labelled_indices(self) -> List[int]:
        """Frames whose boxes are trained on: positions k-1, 2k-1, ... of each scene for `label_every` = k.

        A scene of fewer than k frames keeps its last one.
        """
        every = self.config.data.label_every
        return [
            i
            for i, (place, length) in enumerate(self._position)
            if place % every == every - 1 or (length < every and place == length - 1)
        ]

    def between_indices(self) -> List[int]:
        labelled = set(self.labelled_indices())
        return [i for i in range(len(self)) if i not in labelled]

    def truth(self, index: int) -> GroundTruth:
        """Valid boxes of the ten classes, centre strictly inside the BEV range; NaN velocity is 0."""
        boxes, labels = ground_truth(self.infos.infos[index], self.config.head.pc_range_m)
        return GroundTruth(torch.from_numpy(boxes), torch.from_numpy(labels))

    def train_sample(self, index: int, rng: np.random.RandomState) -> Optional[Sample]:
        """The queue of `queue_length` frames that ends at `index`; None when `draw_queue` says None."""
        queue = self.draw_queue(index, rng)
        return None if queue is None else self.load_queue(queue, rng)

    def draw_queue(self, index: int, rng: np.random.RandomState) -> Optional[List[int]]:
        """Which frames the queue that ends at `index` has; no image is read.

        None when any of them has no valid box: the caller draws another index.
        """
        queue = self.queue_indices(index, rng)
        if any(len(self.truth(i).labels_G) == 0 for i in sorted(set(queue))):
            return None
        return queue

    def load_queue(self, queue: Sequence[int], rng: np.random.RandomState) -> Sample:
        """A drawn queue with its images and boxes; ego motion relative within it."""
        tokens = [self.infos.infos[i]["scene_token"] for i in queue]
        can_bus = queue_differences(self._can_bus_F18[list(queue)], tokens)
        frames = []
        for k, i in enumerate(queue):
            # A set of one frame has no history to learn from; elsewhere a repeated frame 0 counts as
            # history without motion, as upstream.
            history = k > 0 and tokens[k] == tokens[k - 1] and len(self) > 1
            frames.append(self._frame(i, can_bus[k], history, rng))
        return Sample(tuple(frames), self.truth(queue[-1]))

    def queue_indices(self, index: int, rng: np.random.RandomState) -> List[int]:
        """`queue_length` indices, sorted, `index` last: of those before it one is dropped at random.

        Indices below 0 become 0.  Upstream lets the repeated entries share one CAN row, so that they can keep
        absolute positions; here each is its own.
        """
        length = self.config.data.queue_length
        earlier = list(range(index - length, index))
        del earlier[rng.randint(length)]
        return [max(0, i) for i in earlier] + [index]

    def test_frame(self, index: int) -> Frame:
        """One frame with absolute can_bus; `prev_bev_exists` is False and means nothing."""
        return self._frame(index, self._can_bus_F18[index].copy(), False, None)

    def _frame(
        self, index: int, can_bus_18: np.ndarray, history: bool, rng: Optional[np.random.RandomState]
    ) -> Frame:
        info = self.infos.infos[index]
        images, distortions = self._images(index, rng if self._data.photometric else None)
        height, width = images.shape[-2:]
        if self._raw:
            scaled = scaled_hw((height, width), self._data.scale)
            height, width = padded_hw(scaled, self._data.pad_divisor)
        meta = FrameMeta(
            sample_token=info["token"],
            scene_token=info["scene_token"],
            timestamp_s=info["timestamp"] / 1e6,
            lidar2img_N44=scaled_lidar2img(self._lidar2img_FN44[index], self.config.data.scale),
            can_bus_18=can_bus_18,
            prev_bev_exists=history,
            img_shape_hw=(height, width),
        )
        return Frame(images, meta, distortions)

    def _images(
        self, index: int, rng: Optional[np.random.RandomState]
    ) -> Tuple[Tensor, Tuple[Distortion, ...]]:
        """(6, 3, H, W) as a Frame has them; `rng` distorts, or draws what is left to the device."""
        drawn = () if rng is None else tuple(draw_distortion(rng) for _ in CAMERAS)
        if self._raw:
            return self._decoded(index, True).permute(0, 3, 1, 2), drawn
        if self._cache is None or self._data.photometric or self._data.scale >= 0.5:
            return finished(self._decoded(index, False), self._data, drawn), ()
        # Scaled below a half, the finished floats are smaller than the decoded bytes.
        if index not in self._cache:
            self._cache[index] = finished(self._read(index), self._data)
        return self._cache[index].clone(), ()

    def _decoded(self, index: int, to_send: bool) -> Tensor:
        """(6, H, W, 3) uint8 BGR; one to send is the caller's own."""
        if self._cache is None:
            return self._read(index)
        if index not in self._cache:
            self._cache[index] = self._read(index)
        return self._cache[index].clone() if to_send else self._cache[index]

    def _read(self, index: int) -> Tensor:
        return decode_frame(self.infos.infos[index], self.store, self._decoder)


def finished(images_NHWC: Tensor, data: DataConfig, distortions: Sequence[Distortion] = ()) -> Tensor:
    """(6, H, W, 3) uint8 BGR -> (6, 3, H', W') float32 as the backbone sees them, with OpenCV.

    distortions: one for each image, or none.
    """
    done = []
    for place, image in enumerate(images_NHWC.numpy()):
        if distortions:
            image = transforms.distorted(image.astype(np.float32), distortions[place])
        done.append(transforms.scale(transforms.normalise(image, data), data.scale))
    return torch.from_numpy(transforms.padded_planes(done, data.pad_divisor))


def decode_frame(info: Info, store: Store, decoder: Decoder = DECODERS["cv2"]) -> Tensor:
    """The six images, (6, H, W, 3) uint8 BGR, in the order of CAMERAS.

    Raises DataError naming sample and camera when one is missing, broken, of another size than the first, or
    does not fit its calibration.
    """
    images: Optional[Tensor] = None
    first_shape: Tuple[int, ...] = ()
    for place, channel in enumerate(CAMERAS):
        cam = info["cams"][channel]
        name = image_name(cam, channel, store)
        out = None if images is None else images[place].numpy()
        try:
            image = decoder.decode(store.view(name), name, out)
        except DataError as error:
            raise DataError(
                "sample %s, %s: %s" % (info["token"], channel, error.seen), error.why, error.do
            ) from error
        first_shape = first_shape or image.shape
        _check_size(image.shape, first_shape, decoder.shrink, cam, "sample %s, %s" % (info["token"], channel))
        if images is None:
            images = empty_bytes((len(CAMERAS), *first_shape))
        if image is not out:
            images[place].numpy()[...] = image
    assert images is not None
    return images


def _check_size(shape: Sequence[int], first: Sequence[int], shrink: int, cam: Info, whose: str) -> None:
    """`shrink`: how many times smaller than in the file the image is."""
    height, width = shape[:2]
    if tuple(shape) != tuple(first):
        raise DataError(
            "%s: the image is %dx%d, %s's is %dx%d" % (whose, width, height, CAMERAS[0], first[1], first[0]),
            "The six images of a frame have to be of one size.",
            "Fetch the images again.",
        )
    intrinsic = np.asarray(cam["cam_intrinsic"])
    cx, cy = intrinsic[0, 2] / shrink, intrinsic[1, 2] / shrink
    if abs(cx / width - 0.5) > MAX_OFF_CENTRE or abs(cy / height - 0.5) > MAX_OFF_CENTRE:
        raise DataError(
            "%s: the image is %dx%d, but its calibration is for about %dx%d"
            % (whose, width, height, round(2 * cx), round(2 * cy)),
            "Projected boxes and features would land in the wrong place.",
            "Use the original images; the model scales them itself.",
        )


def ground_truth(info: Info, pc_range_m: Tuple[float, ...]) -> Tuple[np.ndarray, np.ndarray]:
    """boxes (G, 9) float32 gravity-centred legacy, labels (G,) int64 of one frame."""
    names = np.asarray(info["gt_names"], dtype=str)
    labels = np.array([CLASSES.index(name) if name in CLASSES else -1 for name in names], dtype=np.int64)
    velocity = np.array(info["gt_velocity"], dtype=np.float64).reshape(-1, 2)
    velocity[np.isnan(velocity[:, 0])] = 0.0
    boxes = np.concatenate([np.asarray(info["gt_boxes"]).reshape(-1, 7), velocity], axis=1).astype(np.float32)
    x, y = boxes[:, 0], boxes[:, 1]
    low_x, low_y, high_x, high_y = (pc_range_m[i] for i in (0, 1, 3, 4))
    keep = (
        np.asarray(info["valid_flag"], dtype=bool)
        & (labels >= 0)
        & (x > low_x)
        & (x < high_x)
        & (y > low_y)
        & (y < high_y)
    )
    boxes = boxes[keep]
    boxes[:, 6] = wrap_angle(boxes[:, 6])
    return boxes, labels[keep]


def all_lidar2img(infos: Infos) -> np.ndarray:
    """(F, 6, 4, 4) float64: intrinsics @ lidar-to-camera, in pixels of the unscaled images."""
    sensor2lidar = rigid_of(
        infos.cam_numbers("sensor2lidar_rotation").reshape(-1, 3, 3),
        infos.cam_numbers("sensor2lidar_translation").reshape(-1, 3),
    )
    view = np.tile(np.eye(4), (len(sensor2lidar), 1, 1))
    view[:, :3, :3] = infos.cam_numbers("cam_intrinsic").reshape(-1, 3, 3)
    lidar2img = (view @ rigid_inverse(sensor2lidar)).reshape(-1, len(CAMERAS), 4, 4)
    finite = np.isfinite(lidar2img).all(axis=(2, 3))
    if not finite.all():
        frame, camera = np.argwhere(~finite)[0]
        raise DataError(
            "sample %s, %s: lidar2img holds a number that is not finite"
            % (infos.infos[frame]["token"], CAMERAS[camera]),
            "%d of %d cameras in %s are affected." % ((~finite).sum(), finite.size, infos.source),
            "Make the file again with `bevrepro data prepare`.",
        )
    return lidar2img


def all_can_bus(infos: Infos) -> np.ndarray:
    """(F, 18) float64, absolute, with the ego pose filled in."""
    names = ("can_bus", "ego2global_translation", "ego2global_rotation")
    rows = with_ego_pose(*(infos.numbers(name) for name in names))
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(
            "sample %s: its ego pose or CAN data holds a number that is not finite"
            % infos.infos[bad[0]]["token"],
            "%d frames of %s are affected." % (len(bad), infos.source),
            "Make the file again with `bevrepro data prepare`.",
        )
    return rows


def _positions_in_scene(scene_tokens: Sequence[str]) -> List[Tuple[int, int]]:
    """(place, length of its scene) of every frame."""
    lengths: Dict[str, int] = {}
    places = []
    for token in scene_tokens:
        places.append(lengths.get(token, 0))
        lengths[token] = places[-1] + 1
    return [(place, lengths[token]) for place, token in zip(places, scene_tokens)]
