"""mmcv's way to a checkpoint in a local file, through the bundled reader: nothing that a file carries is run.

On every torch: mmcv's own runs what a file carries below 2.6, and from there on refuses what mmcv itself
writes into a meta.
"""

import os
import warnings
from typing import Any, Mapping

import mmdet3d

from ..box_convention import LEGACY, TURNED, convention_of, note_on, trained_with
from ..checkpoint import plain
from ..checkpoint_read import read_file

BOXES = convention_of(mmdet3d.__version__)
OF_BEVFORMER = "bev_embedding.weight"  # ends a key of every BEVFormer, and of no other detector of mmdet3d


def load_from_file(filename: str, map_location: Any = None) -> Any:
    """For mmcv's CheckpointLoader.  On the CPU: runners and models copy to their device.

    Warns of the boxes that a BEVFormer has learned (`warn_of_boxes`).  Raises CheckpointError.
    """
    content = read_file(os.path.expanduser(filename))
    if isinstance(content, dict) and isinstance(content.get("meta"), dict):
        content["meta"] = {key: plain(value) for key, value in content["meta"].items()}
        if any(str(key).endswith(OF_BEVFORMER) for key in content.get("state_dict") or ()):
            warn_of_boxes(content["meta"], filename)
    return content


def warn_of_boxes(meta: Mapping[str, Any], path: str) -> None:
    """What is assumed of a file's boxes; nothing where it and what is here are older than mmdet3d 1.0."""
    seen = trained_with(meta)
    if seen and (meta.get(TURNED) or not seen == BOXES == LEGACY):
        warnings.warn("%s: %s" % (path, note_on(meta)), stacklevel=3)
