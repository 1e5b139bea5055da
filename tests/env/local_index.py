"""A package index in a folder: tiny wheels and sdists with metadata, served as file://."""

import hashlib
import io
import tarfile
import zipfile


class LocalIndex:
    """`add` puts a file of a package into it; `url` is what an installer is given."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"file://{folder}/simple"
        (folder / "simple").mkdir(parents=True)

    def add(self, name, version, *requires, yanked=None, sdist=False):
        """A wheel for every Python, or an sdist whose setup.py stops with an error."""
        home = self.folder / "simple" / name
        home.mkdir(exist_ok=True)
        kind = f"{name}-{version}.tar.gz" if sdist else f"{name}-{version}-py3-none-any.whl"
        content = self._sdist(name, version) if sdist else self._wheel(name, version, requires)
        (home / kind).write_bytes(content)
        mark = "" if yanked is None else f' data-yanked="{yanked}"'
        digest = hashlib.sha256(content).hexdigest()
        with open(home / "index.html", "a") as page:
            page.write(f'<a href="{kind}#sha256={digest}"{mark}>{kind}</a>\n')
        return digest

    @staticmethod
    def _wheel(name, version, requires):
        whole, info = io.BytesIO(), f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
        tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files = {
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": tags,
            f"{name}.py": f"version = {version!r}\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(whole, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        return whole.getvalue()

    @staticmethod
    def _sdist(name, version):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:gz") as archive:
            text = b"raise SystemExit('this setup.py imports torch')\n"
            member = tarfile.TarInfo(f"{name}-{version}/setup.py")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        return whole.getvalue()
