"""The image pipelines of an upstream configuration: same steps, same order, or a refusal."""

import dataclasses
from typing import Any, Dict, List, Sequence, Tuple

from .config import Config
from .errors import ConfigError
from .types import CLASSES
from .upstream_reader import Located

# step -> the arguments that are built in (None: any value, it is read or has no effect)
_STEPS: Dict[str, Dict[str, Any]] = {
    "LoadMultiViewImageFromFiles": {"to_float32": True},
    "PhotoMetricDistortionMultiViewImage": {},
    "LoadAnnotations3D": {"with_bbox_3d": True, "with_label_3d": True, "with_attr_label": False},
    "ObjectRangeFilter": {"point_cloud_range": None},
    "ObjectNameFilter": {"classes": list(CLASSES)},
    "NormalizeMultiviewImage": {"mean": None, "std": None, "to_rgb": None},
    "RandomScaleImageMultiViewImage": {"scales": None},
    "PadMultiViewImage": {"size_divisor": None},
    "DefaultFormatBundle3D": {"class_names": list(CLASSES), "with_label": None},
    "CustomCollect3D": {"keys": None},
    "MultiScaleFlipAug3D": {"img_scale": None, "pts_scale_ratio": 1, "flip": False, "transforms": None},
}
_TRAIN = (
    "LoadMultiViewImageFromFiles",
    "PhotoMetricDistortionMultiViewImage",
    "LoadAnnotations3D",
    "ObjectRangeFilter",
    "ObjectNameFilter",
    "NormalizeMultiviewImage",
    "RandomScaleImageMultiViewImage",
    "PadMultiViewImage",
    "DefaultFormatBundle3D",
    "CustomCollect3D",
)
_TEST = (
    "LoadMultiViewImageFromFiles",
    "NormalizeMultiviewImage",
    "RandomScaleImageMultiViewImage",
    "PadMultiViewImage",
    "DefaultFormatBundle3D",
    "CustomCollect3D",
)
# Base has no scaling step and no distortion is a choice: these may be missing.
_OPTIONAL = ("PhotoMetricDistortionMultiViewImage", "RandomScaleImageMultiViewImage")


def _refuse(where: str, what: str, why: str) -> ConfigError:
    return ConfigError(
        "%s: %s cannot be honoured" % (where, what),
        why,
        "Change the line, or start from the nearest preset with --cfg-options.",
    )


def _flat(steps: Sequence[Located], where: str) -> List[Located]:
    out: List[Located] = []
    for step in steps:
        if not isinstance(step, Located) or step.get("type") not in _STEPS:
            raise _refuse(
                where,
                "pipeline step %r" % (step.get("type") if isinstance(step, dict) else step),
                "Known steps: " + ", ".join(_STEPS),
            )
        for key, value in step.items():
            known = _STEPS[step["type"]]
            if key != "type" and key not in known:
                raise _refuse(
                    step.where[key], "%s.%s" % (step["type"], key), "The step has no such option here."
                )
            if key != "type" and known[key] is not None and value != known[key]:
                raise _refuse(
                    step.where[key],
                    "%s.%s = %r" % (step["type"], key, value),
                    "The bundled data set has %r built in." % (known[key],),
                )
        out.extend(
            _flat(step["transforms"], step.where["transforms"])
            if step["type"] == "MultiScaleFlipAug3D"
            else [step]
        )
    return out


def _check_order(steps: Sequence[Located], order: Sequence[str], where: str) -> None:
    names = [step["type"] for step in steps]
    wanted = [name for name in order if name in names or name not in _OPTIONAL]
    if names != wanted:
        raise _refuse(where, "the order %s" % " > ".join(names), "It has to be %s." % " > ".join(wanted))


def _images(steps: Sequence[Located], where: str) -> Dict[str, Any]:
    by_name = {step["type"]: step for step in steps}
    normalise = by_name["NormalizeMultiviewImage"]
    scaling = by_name.get("RandomScaleImageMultiViewImage")
    scales = [1.0] if scaling is None else list(scaling["scales"])
    if len(scales) != 1:
        raise _refuse(where, "scales = %r" % scales, "One fixed scale is built in (upstream asserts it too).")
    return dict(
        mean=tuple(map(float, normalise["mean"])),
        std=tuple(map(float, normalise["std"])),
        to_rgb=bool(normalise["to_rgb"]),
        scale=float(scales[0]),
        pad_divisor=int(by_name["PadMultiViewImage"]["size_divisor"]),
        photometric="PhotoMetricDistortionMultiViewImage" in by_name,
    )


def _one(config: Config, section: Any, order: Tuple[str, ...]) -> Dict[str, Any]:
    if not isinstance(section, Located) or not isinstance(section.get("pipeline"), (list, tuple)):
        raise ConfigError("the section data has no pipeline for one of train, test")
    where = section.where["pipeline"]
    steps = _flat(section["pipeline"], where)
    _check_order(steps, order, where)
    return _images(steps, where)


def read_pipelines(config: Config, tree: Located) -> Config:
    """`data` of our configuration from data.train.pipeline; data.test.pipeline has to agree with it."""
    data = tree["data"]
    train = _one(config, data.get("train"), _TRAIN)
    test_section = data["test"] if "test" in data else data.get("val")
    test = _one(config, test_section, _TEST)
    for key in ("mean", "std", "to_rgb", "scale", "pad_divisor"):
        if train[key] != test[key]:
            raise _refuse(
                test_section.where["pipeline"],
                "%s = %r in the test pipeline" % (key, test[key]),
                "Training uses %r; the bundled data set has one setting." % (train[key],),
            )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **train))
