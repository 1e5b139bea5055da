"""facts/presets.toml says what model/bevformer/config.py says.

python tests/drive/test_presets.py      writes it again
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAD = """\
# The presets as `run.json` has configurations: what a run's settings are compared with (drive/settings.py).
# Written by `python tests/drive/test_presets.py` from model/bevformer/config.py; a test compares the two.
"""
SOURCE = "model/bevformer/config.py: the numbers of the reference's configs @66b65f3 (micro: facts/micro.md)"


def text():
    """The file as it has to be."""
    from bevformer.config import PRESETS, preset, to_dict

    rows = []
    for name in PRESETS:
        groups = json.loads(json.dumps(to_dict(preset(name))))
        body = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in groups.items())
        rows.append(
            f"\n[[row]]\nid = \"{name}\"\nconfig = '''\n{{\n{body}\n}}'''\nsource = \"{SOURCE}\"\n"
            'checked = "2026-11-21"\nstatus = "read"\n'
        )
    return HEAD + "".join(rows)


def test_the_presets_are_those_of_the_model_plane():
    held = (ROOT / "bevrepro" / "facts" / "presets.toml").read_text()
    assert held == text(), "write it again with `python tests/drive/test_presets.py`"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "model"))
    (ROOT / "bevrepro" / "facts" / "presets.toml").write_text(text())
