"""`bevrepro env build --conda`: the interpreter and the compilers come from a conda that is there."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bevrepro.core.errors import MachineError

if TYPE_CHECKING:
    from bevrepro.env.target import Target


def python_by_conda(
    target: "Target", versions: Sequence[str], channels: Sequence[str], dry_run: bool, as_json: bool
) -> str | None:
    """The path of conda's Python, with CC and CXX set to its compilers where operators are compiled.

    The first of `versions` that conda has. A dry run prints what conda would be asked and returns None.
    """
    from bevrepro.env import conda, cuda_recipe

    newest = cuda_recipe.load(target.cuda.version).newest_gcc if target.cuda else None
    places = tuple(channels) or conda.CHANNELS
    wishes = [conda.wish(version, bool(target.build.sdists), newest, places) for version in versions]
    if dry_run:
        command = [str(word) for word in wishes[0].argv()]
        print(json.dumps({"conda": command}, indent=2) if as_json else shlex.join(command))
        return None
    failed: MachineError | None = None
    for wanted in wishes:
        print(f"Python {wanted.python} from {wanted.program.name}", file=sys.stderr)
        try:
            provided = conda.provide(wanted)
        except MachineError as error:
            failed = failed or error  # the best version's reason is the one to read
            continue
        # Whatever is compiled in this process's children is compiled by these.
        os.environ.update(provided.environment)
        return str(provided.python)
    assert failed is not None
    raise failed
