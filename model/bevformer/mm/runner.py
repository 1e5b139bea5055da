"""What upstream's mixed-precision files name beside the detector.  The bundled one needs neither: it runs the
history of a step itself, with the weights that are trained.
"""

from typing import Any

from mmcv.runner import EpochBasedRunner, Hook


class EpochBasedRunner_video(EpochBasedRunner):  # type: ignore[misc]
    """mmcv's, for files that ask for upstream's."""

    def __init__(self, model: Any, *args: Any, eval_model: Any = None, **kwargs: Any) -> None:
        """eval_model: upstream's copy for the history; not used."""
        kwargs.pop("keys", None)
        super().__init__(model, *args, **kwargs)


class TransferWeight(Hook):  # type: ignore[misc]
    """Upstream's copies weights into that second model; here is one model."""

    def __init__(self, every_n_inters: int = 1) -> None:
        self.every_n_inters = every_n_inters
