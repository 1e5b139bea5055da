"""A small model of upstream's kind on the synthetic set: as mmdet3d builds both, and as ours."""

import types

import mmdet3d.datasets
import mmdet3d.models
import numpy as np
from mmcv import Config
from upstream_files import TEMPLATE, TINY, write

from bevformer.data.dataset import NuScenesQueue
from bevformer.data.infos import load_infos
from bevformer.data.store import open_store
from bevformer.detector import build_model
from bevformer.loading import draw_queues
from bevformer.runstate import DataOrder, seed_step, step_rng
from bevformer.upstream_config import read_config

SMALLER = {"num_query=900": "num_query=40", "num_layers=6": "num_layers=2", "max_num=300": "max_num=100"}
CAMERAS_ONLY = dict(use_camera=True, use_lidar=False, use_radar=False, use_map=False, use_external=True)
SEED = 3


def config_file(folder):
    """The path of the template with fewer queries and layers; images at half their size."""
    text = TEMPLATE.format(**dict(TINY, side=20, layers=1, queue=2))
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    return write(folder, 'custom_imports = dict(imports=["bevformer.mm.register"])\n' + text)


def parsed(folder, synth):
    """mmcv's Config, with the set's folders filled in."""
    config = Config.fromfile(str(config_file(folder)))
    for split, name in (("train", "train"), ("test", "val")):
        part = config.data[split]
        part.data_root = synth.root
        part.ann_file = "%s/nuscenes_infos_temporal_%s.pkl" % (synth.infos, name)
        part.modality = CAMERAS_ONLY
    config.data.test.test_mode = True
    return config


def both(folder, synth):
    """.config, .theirs (model, train, test) and .ours, the same weights."""
    config = parsed(folder, synth)
    theirs = types.SimpleNamespace(
        model=mmdet3d.models.build_model(config.model),
        train=mmdet3d.datasets.build_dataset(config.data.train),
        test=mmdet3d.datasets.build_dataset(config.data.test),
    )
    known = read_config(folder / "bevformer_tiny.py")[0]
    store = open_store([synth.root])

    def opened(split, training):
        infos = load_infos("%s/nuscenes_infos_temporal_%s.pkl" % (synth.infos, split))
        return NuScenesQueue(infos, store, known, training)

    ours = types.SimpleNamespace(
        config=known, model=build_model(known), train=opened("train", True), test=opened("val", False)
    )
    ours.model.load_state_dict(theirs.model.state_dict())
    return types.SimpleNamespace(config=config, theirs=theirs, ours=ours)


class Steps:
    """Of upstream's data set the queues of our steps, with the random numbers that our loop would draw."""

    def __init__(self, theirs, ours, order, steps):
        self._theirs, self._ours, self._order, self._steps = theirs, ours, order, steps
        self.CLASSES, self.flag = theirs.CLASSES, np.zeros(steps, np.uint8)

    def __len__(self):
        return self._steps

    def __getitem__(self, step):
        rng = step_rng(SEED, step)
        (queue,) = draw_queues(self._ours, self._order.at(step), self._order.indices, rng)
        np.random.set_state(rng.get_state())
        data = self._theirs.queue(queue)
        state = np.random.get_state()
        seed_step(SEED, step)  # dropout
        np.random.set_state(state)  # GridMask goes on where the images stopped
        return data


def order_of(ours):
    return DataOrder(tuple(ours.train.labelled_indices()), 1, SEED)
