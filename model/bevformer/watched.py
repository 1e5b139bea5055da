"""Labels for what happens inside of modules."""

from typing import Any, List

from torch import nn


class Watched:
    """While a watched module's forward pass runs, its label is the last of `_labels`."""

    def __init__(self) -> None:
        super().__init__()
        self._labels: List[str] = []
        self._hooks: List[Any] = []

    def watch(self, module: nn.Module, label: str) -> None:
        """Count what `module`'s forward pass makes under `label`; the innermost watched module wins."""

        def enter(module: nn.Module, inputs: Any) -> None:
            self._labels.append(label)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._labels.pop()

        self._hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def unwatch(self) -> None:
        """Take every label off again."""
        for hook in self._hooks:
            hook.remove()
        del self._hooks[:]
