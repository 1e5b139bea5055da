"""Small blocks shared by encoder and decoder, with mmcv's parameter names."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn


class FFN(nn.Module):
    """x + Dropout(W2 Dropout(ReLU(W1 x))); keys layers.0.0 and layers.1 as in mmcv's FFN."""

    def __init__(self, dims: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(dims, hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, dims),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class LearnedPositionalEncoding(nn.Module):
    """Rows and columns each have `dims / 2` learned numbers; the column's come first."""

    def __init__(self, height: int, width: int, dims: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(height, dims // 2)
        self.col_embed = nn.Embedding(width, dims // 2)

    def forward(self) -> Tensor:
        """(height * width, dims); index = row * width + column."""
        rows, cols = self.row_embed.weight, self.col_embed.weight
        grid = torch.cat([cols[None].expand(len(rows), -1, -1), rows[:, None].expand(-1, len(cols), -1)], -1)
        return grid.flatten(0, 1)


def can_bus_mlp(dims: int) -> nn.Sequential:
    """18 -> dims/2 -> dims, ReLU after both, LayerNorm; keys 0, 2 and norm."""
    return nn.Sequential(
        OrderedDict(
            [
                ("0", nn.Linear(18, dims // 2)),
                ("1", nn.ReLU()),
                ("2", nn.Linear(dims // 2, dims)),
                ("3", nn.ReLU()),
                ("norm", nn.LayerNorm(dims)),
            ]
        )
    )


def init_sampling(offsets: nn.Linear, weights: nn.Linear, heads: int, points: int) -> None:
    """Offsets start as `heads` directions, point i at distance i+1; weights start uniform."""
    nn.init.zeros_(offsets.weight)
    angles = torch.arange(heads, dtype=torch.float32) * (2.0 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().max(-1, keepdim=True)[0]
    groups = offsets.bias.numel() // (heads * points * 2)
    bias = directions.view(heads, 1, 1, 2).repeat(1, groups, points, 1)
    bias = bias * torch.arange(1, points + 1, dtype=torch.float32).view(1, 1, points, 1)
    with torch.no_grad():
        offsets.bias.copy_(bias.flatten())
    nn.init.zeros_(weights.weight)
    nn.init.zeros_(weights.bias)


def init_projection(*linears: nn.Linear) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
