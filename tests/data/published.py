"""A data set of kilobytes in archives like the official ones, and the catalogue of what was published."""

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

from bevrepro.data.catalogue import Entry
from bevrepro.probe.nuscenes import TABLES

CAMERAS = [f"CAM_{name}" for name in "FRONT FRONT_RIGHT FRONT_LEFT BACK BACK_LEFT BACK_RIGHT".split()]
SCENES = ("scene-0061", "scene-0103")
SAMPLES = 6
VERSION = "v1.0-mini"


def picture(number):
    """Begins and ends like a JPEG; incompressible, as pictures are."""
    body = b"".join(hashlib.sha256(b"%d %d" % (number, part)).digest() for part in range(40))
    return b"\xff\xd8" + body.replace(b"\0", b"\1") + b"\xff\xd9"


def files():
    """name -> content of the whole set."""
    rows = {name: [] for name in TABLES}
    rows["scene"] = [{"token": name, "name": name} for name in SCENES]
    rows["map"] = [{"token": "m", "filename": "maps/map.png"}]
    made = {"maps/map.png": b"png", **{f"can_bus/{name}_pose.json": b'[{"utime": 1}]' for name in SCENES}}
    for number in range(SAMPLES):
        rows["sample"].append({"token": f"s{number}", "scene_token": SCENES[number % 2], "timestamp": number})
        for place, camera in enumerate(CAMERAS):
            name = f"samples/{camera}/{number}.jpg"
            made[name] = picture(10 * number + place)
            rows["sample_data"].append({"token": name, "filename": name, "is_key_frame": True})
        sweep = f"sweeps/CAM_FRONT/{number}.jpg"
        made[sweep] = picture(1000 + number)
        rows["sample_data"].append({"token": sweep, "filename": sweep, "is_key_frame": False})
    made.update(
        {f"{VERSION}/{name}.json": json.dumps(each, indent=0).encode() for name, each in rows.items()}
    )
    return made


def pack(path, content, names):
    """.tgz, .tar or .zip by the ending, folders first as tar makes them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, content[name])
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content[name])
            tar.addfile(entry, io.BytesIO(content[name]))
    return path


def archives(folder, form="tgz"):
    """v1.0-mini with tables and pictures, and can_bus.zip, in `folder`."""
    content = files()
    folder.mkdir(parents=True, exist_ok=True)
    mine = [name for name in content if not name.startswith("can_bus/")]
    pack(folder / f"v1.0-mini.{form}", content, mine)
    pack(folder / "can_bus.zip", content, sorted(set(content) - set(mine)))
    return folder


def extract(folder):
    """The same as folders."""
    for name, content in files().items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder)


def catalogue(folder, md5=True):
    """As if these very archives had been published."""
    mini, can = folder / "v1.0-mini.tgz", folder / "can_bus.zip"
    entries = []
    for path, kind, version in ((mini, "mini", VERSION), (can, "can_bus", "")):
        if path.exists():
            content = path.read_bytes()
            digest = hashlib.md5(content).hexdigest() if md5 else None
            entries.append(Entry(path.name, kind, "current", version, None, len(content), md5=digest))
    return tuple(entries)
