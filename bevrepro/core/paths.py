"""Where things are: the shipped model plane and targets, the user's cache and state; whole-file writes."""

import os
import tempfile
from pathlib import Path

from bevrepro.core.errors import DiskError, MachineError

PACKAGE_DIR = Path(__file__).resolve().parent.parent


def model_dir() -> Path:
    """The folder to put on a child's PYTHONPATH; it holds `bevformer/`."""
    return _shipped("model", "bevformer/__init__.py")


def envs_dir() -> Path:
    """Targets, locks and toolkit recipes."""
    return _shipped("envs", "")


def patches_dir() -> Path:
    """Patches to pinned packages, one folder per set."""
    return _shipped("patches", "README.md")


def docker_dir() -> Path:
    """Container files and what they run while an image is built."""
    return _shipped("docker", "bases.toml")


def cache_dir() -> Path:
    """What can be made again: archive indexes, downloads. $BEVREPRO_CACHE or the XDG cache folder."""
    return _user_dir("BEVREPRO_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """What the next command needs: remembered mounts. $BEVREPRO_STATE or the XDG state folder."""
    return _user_dir("BEVREPRO_STATE", "XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """The user's own settings: the script that `doctor --fix` writes. $BEVREPRO_CONFIG or the XDG folder."""
    return _user_dir("BEVREPRO_CONFIG", "XDG_CONFIG_HOME", ".config")


def atomic_write_text(path: Path, text: str) -> None:
    """Write the whole file or nothing: temporary name beside it, fsync, rename. DiskError when it cannot."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """As `atomic_write_text`, for bytes."""
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_for(path))
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DiskError(
            f"could not write {path}: {error.strerror}",
            "The file is as it was before." if path.exists() else "Nothing was left behind.",
            "Free some space or name a folder that can be written.",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _mode_for(path: Path) -> int:
    """mkstemp makes 0600 files; keep an existing file's mode, else what the umask allows."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def _shipped(name: str, landmark: str) -> Path:
    """`bevrepro/_<name>` in an installed wheel, `<name>/` beside the package in a checkout."""
    places = (PACKAGE_DIR / f"_{name}", PACKAGE_DIR.parent / name)
    for place in places:
        if (place / landmark).exists():
            return place
    raise MachineError(
        f"the shipped folder {name}/ is missing: looked in {places[0]} and {places[1]}",
        "bevrepro's installation is incomplete.",
        "Install bevrepro again.",
    )


def _user_dir(own: str, xdg: str, fallback: str) -> Path:
    if os.environ.get(own):
        return Path(os.environ[own]).expanduser().absolute()
    base = os.environ.get(xdg, "")
    # The XDG rules ask to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "bevrepro"
