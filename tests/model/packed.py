"""The same files as a folder, .tar, .tgz or .zip."""

import io
import random
import tarfile
import zipfile

RNG = random.Random(7)
FILES = {f"samples/CAM_FRONT/{i:03d}.jpg": RNG.randbytes(1000 + 997 * i % 40_000) for i in range(120)}
FILES["can_bus/scene-0001_pose.json"] = b"[]"
FILES["v1.0-mini/scene.json"] = b'[{"name": "scene-0001"}]' * 200
PICTURE = "samples/CAM_FRONT/007.jpg"


def tar_bytes(files=FILES, mode="w", **kwargs):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **kwargs) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def make(path, files=FILES):
    """A folder, .tar, .tgz or .zip with these files, by the ending of `path`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif path.suffix in (".tar", ".tgz"):
        path.write_bytes(tar_bytes(files, "w:gz" if path.suffix == ".tgz" else "w"))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path
