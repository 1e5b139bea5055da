"""Means of what a training tells of its steps."""

import math
from typing import Dict, List, Mapping


class Means:
    """Means of the finite terms over the steps since they were last taken."""

    def __init__(self) -> None:
        self._sums: Dict[str, List[float]] = {}

    def add(self, terms: Mapping[str, float]) -> None:
        for key, value in terms.items():
            if math.isfinite(value):
                total = self._sums.setdefault(key, [0.0, 0.0])
                total[0] += value
                total[1] += 1

    def take(self) -> Dict[str, float]:
        """The means, and begin again."""
        means = {key: total / count for key, (total, count) in self._sums.items()}
        self._sums = {}
        return means
