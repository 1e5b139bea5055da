"""The source tree that a configuration lies in: what its tools will stop at."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe.files import read_text

HIGHEST = 6  # folders above a configuration: projects/configs/bevformer/x.py lies three below its tree
CONVERTER, TEST = "tools/data_converter/indoor_converter.py", "tools/test.py"
ABSOLUTE = re.compile(r"^\s*from tools\.", re.MULTILINE)
DEMANDED = re.compile(r"if not distributed:\s*\n\s*assert False")


@dataclass(frozen=True)
class Tree:
    """A tree with tools/, as BEVFormer's is."""

    path: str
    absolute_imports: bool  # its converter says `from tools.data_converter...`
    on_path: bool  # PYTHONPATH names it
    launcher_demanded: bool  # its tools/test.py refuses to run without one


def probe_tree(file: Path, environment: Mapping[str, str] | None = None) -> Tree | None:
    """None where no folder above `file` has such tools."""
    environment = os.environ if environment is None else environment
    for folder in file.absolute().parents[:HIGHEST]:
        converter, test = read_text(folder / CONVERTER), read_text(folder / TEST)
        if converter is not None or test is not None:
            named = [os.path.abspath(each) for each in environment.get("PYTHONPATH", "").split(":") if each]
            return Tree(
                str(folder),
                absolute_imports=bool(ABSOLUTE.search(converter or "")),
                on_path=str(folder) in named,
                launcher_demanded=bool(DEMANDED.search(test or "")),
            )
    return None
