import numpy as np
import pytest
import torch

from bevformer.codes import decode_boxes, encode_boxes, scale_centres
from bevformer.config import HeadConfig
from bevformer.losses import detection_losses, focal_loss
from bevformer.matching import Diverged, match, matching_cost
from bevformer.types import GroundTruth, empty_truth


def truth(n=3, seed=0):
    rng = np.random.RandomState(seed)
    boxes = rng.uniform(-20, 20, (n, 9))
    boxes[:, 3:6] = rng.uniform(0.5, 5, (n, 3))
    boxes[:, 6] = rng.uniform(-3, 3, n)
    return GroundTruth(torch.tensor(boxes, dtype=torch.float64), torch.arange(n))


def predictions(queries=7, layers=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(1, queries, 10, generator=generator, dtype=torch.float64) for _ in range(layers)]
    codes = [torch.randn(1, queries, 10, generator=generator, dtype=torch.float64) for _ in range(layers)]
    return logits, codes


def test_boxes_survive_the_codes():
    boxes = truth().boxes_G9
    assert torch.allclose(decode_boxes(encode_boxes(boxes)), boxes)


def test_centres_are_scaled_to_the_range():
    codes = torch.zeros(2, 10)
    codes[1, [0, 1, 4]] = 1
    scaled = scale_centres(codes, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
    assert scaled[:, [0, 1, 4]].tolist() == [
        pytest.approx([-51.2, -51.2, -5.0]),
        pytest.approx([51.2, 51.2, 3.0]),
    ]


def test_focal_loss_is_the_formula():
    logits, targets = (
        torch.tensor([0.3, -1.2], dtype=torch.float64),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
    )
    p = logits.sigmoid()
    wanted = -0.25 * (1 - p[0]) ** 2 * p[0].log() - 0.75 * p[1] ** 2 * (1 - p[1]).log()
    assert float(focal_loss(logits, targets)) == pytest.approx(float(wanted))


def test_the_matching_cost_is_the_formula():
    boxes, (logits, codes) = truth(), predictions()
    cost, q, g = matching_cost(logits[0][0], codes[0][0], boxes), 4, 2
    p = logits[0][0, q, g].sigmoid()
    cls = -(p + 1e-12).log() * 0.25 * (1 - p) ** 2 + (1 - p + 1e-12).log() * 0.75 * p**2
    box = (codes[0][0, q, :8] - encode_boxes(boxes.boxes_G9)[g, :8]).abs().sum()
    assert float(cost[q, g]) == pytest.approx(float(2 * cls + 0.25 * box))


def test_perfect_codes_have_no_box_loss_and_are_matched_to_their_boxes():
    boxes, (logits, codes) = truth(), predictions()
    codes[0][0, [5, 0, 3]] = encode_boxes(boxes.boxes_G9)
    codes[0][0, [1, 2, 4, 6]] += 1000
    queries, order = match(logits[0][0], codes[0][0], boxes)
    assert dict(zip(queries.tolist(), order.tolist())) == {5: 0, 0: 1, 3: 2}
    assert float(detection_losses(logits[:1], codes[:1], [boxes], HeadConfig())["loss_bbox"]) == 0


def test_an_unknown_velocity_removes_the_box_row_only():
    boxes, (logits, codes) = truth(), predictions()
    unknown = boxes.boxes_G9.clone()
    unknown[1, 7:] = float("nan")
    with_nan = detection_losses(logits, codes, [GroundTruth(unknown, boxes.labels_G)], HeadConfig())
    without = detection_losses(logits, codes, [boxes], HeadConfig())
    assert all(torch.isfinite(loss) for loss in with_nan.values())
    assert float(with_nan["loss_cls"]) == float(without["loss_cls"])
    assert float(with_nan["loss_bbox"]) < float(without["loss_bbox"])


def test_the_divisor_is_the_mean_over_ranks_when_it_is_given():
    boxes, (logits, codes) = truth(), predictions()
    own = detection_losses(logits, codes, [boxes], HeadConfig())
    shared = detection_losses(logits, codes, [boxes], HeadConfig(), mean_positives=6.0)
    assert float(own["loss_cls"]) == pytest.approx(2 * float(shared["loss_cls"]))
    assert float(own["d0.loss_bbox"]) == pytest.approx(2 * float(shared["d0.loss_bbox"]))


def test_a_frame_without_boxes_still_teaches_background():
    logits, codes = predictions()
    losses = detection_losses(logits, codes, [empty_truth()], HeadConfig())
    assert float(losses["loss_cls"]) > 0 and float(losses["loss_bbox"]) == 0


def test_diverged_outputs_are_named():
    boxes, (logits, codes) = truth(), predictions()
    with pytest.raises(Diverged, match="NaN"):
        match(logits[0][0] * float("nan"), codes[0][0], boxes)
