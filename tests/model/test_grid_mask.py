import numpy as np
import torch

from bevformer.grid_mask import draw_mask, grid_mask


def first_seed(below):
    return next(s for s in range(100) if (np.random.RandomState(s).rand() <= 0.7) == below)


def test_the_mask_is_the_union_of_bars_inverted():
    rng = np.random.RandomState(3)
    period, length = np.random.RandomState(3).randint(2, 20), None
    mask = draw_mask(20, 30, rng)
    length = min(max(int(period * 0.5 + 0.5), 1), period - 1)
    again = np.random.RandomState(3)
    again.randint(2, 20)
    row, column = again.randint(period), again.randint(period)
    for y in range(20):
        for x in range(30):
            Y, X = y + 5, x + 7  # centre crop of the 30x45 canvas
            in_row = Y >= row and (Y - row) % period < length and (Y - row) // period < 30 // period
            in_column = (
                X >= column and (X - column) % period < length and (X - column) // period < 45 // period
            )
            assert mask[y, x] == float(in_row or in_column)


def test_one_mask_covers_all_images_in_training():
    images = torch.ones(6, 3, 16, 24)
    out = grid_mask(images, np.random.RandomState(first_seed(True)), training=True)
    assert 0 < float(out.mean()) < 1 and bool((out == out[:1, :1]).all())


def test_it_leaves_images_alone_three_times_in_ten_and_always_in_eval():
    images = torch.ones(6, 3, 16, 24)
    assert torch.equal(grid_mask(images, np.random.RandomState(first_seed(False)), training=True), images)
    assert torch.equal(grid_mask(images, np.random.RandomState(first_seed(True)), training=False), images)


def test_in_eval_one_number_is_drawn_all_the_same():
    rng, other = np.random.RandomState(0), np.random.RandomState(0)
    grid_mask(torch.ones(1, 3, 8, 8), rng, training=False)
    other.rand()
    assert rng.rand() == other.rand()
