"""nuScenes as it lies on disk: folders, archives, prepared files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bevrepro import facts
from bevrepro.core.finding import Finding
from bevrepro.core.units import size
from bevrepro.doctor import mounts
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.host import WINDOWS_FILESYSTEMS
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.readable import readable_check
from bevrepro.probe import downloads
from bevrepro.probe.infos import Infos
from bevrepro.probe.mounts import MountSeen
from bevrepro.probe.nuscenes import Archive, DataSet, probe_data

DOWNLOAD_AGAIN = "Download it again; keep it as it is, bevrepro reads archives without extracting them."
PREPARE = "bevrepro data prepare --data-root ROOT --out FOLDER"


def _counts(version: str | None) -> facts.Row | None:
    return next((row for row in facts.table("nuscenes") if row["id"] == version and "scenes" in row), None)


def _empty(data: DataSet) -> Iterator[Verdict]:
    nothing = not (data.archives or data.tables or data.infos or data.unfinished)
    if data.place.kind == "folder" and nothing:
        what = "is empty" if not data.entries else "holds no v1.0-* tables, archives or infos"
        yield fail(
            f"{data.place.path} {what}",
            "Name the folder that holds v1.0-trainval or v1.0-mini, or the archives; is it mounted?",
            "bevrepro data status",
        )
    elif data.place.kind == "file" and nothing:
        yield fail(f"{data.place.path} is no archive and no infos file",
                   "Name a .tgz, .tar, .zip or .pkl, or a folder.")  # fmt: skip


def _read_only(data: DataSet) -> Iterator[Verdict]:
    if data.tables and data.writable is False:
        kind = f" ({data.filesystem})" if (data.filesystem or "").startswith("fuse") else ""
        yield info(f"{data.place.path} cannot be written{kind}",
                   "bevrepro writes infos elsewhere; tell upstream's converter to (--out-dir).",
                   PREPARE)  # fmt: skip


def _windows_drive(data: DataSet) -> Iterator[Verdict]:
    if data.filesystem in WINDOWS_FILESYSTEMS and data.tables:
        yield warn(
            f"{data.place.path} is a Windows drive ({data.filesystem})",
            "Keep the archives there and let bevrepro read them, or copy the folder to WSL's own disk.",
        )


def _known(archive: Archive) -> list[facts.Row]:
    """Of a browser's second copy (`NAME (1).tgz`) too."""
    plain = downloads.parse(archive.name).plain
    return [row for row in facts.table("archives") if row["name"] == plain]


def _unfinished(data: DataSet) -> Iterator[Verdict]:
    if data.unfinished:
        yield warn(
            f"{data.unfinished[0]} is a download that was not finished"
            + (f", and {len(data.unfinished) - 1} more" if len(data.unfinished) > 1 else ""),
            "Let the browser go on with it, or fetch it with curl -C -, which goes on where it stopped.",
            "bevrepro data scan PATH",
        )


def _archive_size(data: DataSet) -> Iterator[Verdict]:
    for archive in () if data.synthetic else data.archives:
        rows = _known(archive)
        sizes = [row["size"] for row in rows if "size" in row]
        if archive.size_b is None or not sizes or archive.size_b in sizes:
            continue
        if len(sizes) < len(rows):  # a generation whose size nobody wrote down
            yield info(f"{archive.name} has {archive.size_b} bytes, not {sizes[0]}: an older generation?",
                       "Compare its md5.", "bevrepro doctor data PATH --deep")  # fmt: skip
            continue
        sure = all(row.get("status") != "unverified" for row in rows)
        judge = fail if sure and archive.size_b < min(sizes) else warn
        yield judge(
            f"{archive.name} has {archive.size_b} bytes ({size(archive.size_b)}); "
            f"the official one has {' or '.join(map(str, sizes))}",
            DOWNLOAD_AGAIN,
        )


def _archive_md5(data: DataSet) -> Iterator[Verdict]:
    for archive in () if data.synthetic else data.archives:
        known = [row["md5"] for row in _known(archive) if "md5" in row]
        if archive.md5 and known and archive.md5 not in known:
            yield fail(f"{archive.name} has md5 {archive.md5}, not {' or '.join(known)}", DOWNLOAD_AGAIN)


def _archive_form(data: DataSet) -> Iterator[Verdict]:
    for archive in data.archives:
        wanted = {"gz": ("gzip",), "tgz": ("gzip",), "tar": ("tar",), "zip": ("zip",)}
        suffix = archive.name.rpartition(".")[2]
        if archive.error:
            yield fail(f"{archive.name} cannot be read: {archive.error}", "Have its owner let you read it.")
        elif archive.begins in ("html", "text"):
            yield fail(f"{archive.name} is a web page or a text, not an archive", DOWNLOAD_AGAIN)
        elif archive.begins not in wanted.get(suffix, (archive.begins,)):
            yield fail(f"{archive.name} is no {suffix} file (it begins as {archive.begins})", DOWNLOAD_AGAIN)
        elif archive.ends is False:
            yield fail(f"{archive.name} is cut: its end is missing", DOWNLOAD_AGAIN)


def _tables_missing(data: DataSet) -> Iterator[Verdict]:
    for tables in data.tables:
        if tables.lacking or tables.broken:
            what = [f"no {', '.join(tables.lacking[:4])}"] if tables.lacking else []
            yield fail(
                f"{data.place.path}/{tables.version}: {'; '.join([*what, *tables.broken])}",
                f"They come from {tables.version}_meta.tgz (mini: v1.0-mini.tgz).",
            )


def _table_counts(data: DataSet) -> Iterator[Verdict]:
    for tables in data.tables:
        row = _counts(tables.version)
        if row is None or tables.lacking or tables.broken:
            continue
        for what in ("scenes", "samples"):
            found, wanted = getattr(tables, what), row.get(what)
            if found is not None and wanted is not None and found != wanted:
                judge = info if data.synthetic else warn
                yield judge(
                    f"{tables.version} has {found} {what}, nuScenes' own has {wanted}",
                    "A partial or a synthetic set: its metrics cannot be compared with published ones.",
                )


def _sensor_files(data: DataSet) -> Iterator[Verdict]:
    for tables in data.tables:
        if tables.files_missing:
            judge = fail if tables.files_missing == tables.files_looked_for else warn
            yield judge(
                f"{tables.files_missing} of {tables.files_looked_for} keyframe files looked for in "
                f"{tables.version} are missing, {tables.files_named[0]} among them",
                "Add the archives that hold them: mount or name all parts of trainval.",
                "bevrepro data verify PATH --fast",
            )


def _maps(data: DataSet) -> Iterator[Verdict]:
    if data.maps is False:
        yield warn(
            f"{data.place.path} has no maps/", "It is in v1.0-*_meta.tgz; the devkit opens it at start."
        )


def _can_missing(data: DataSet) -> Iterator[Verdict]:
    if data.can_bus is False:
        yield fail(f"{data.place.path} has no can_bus/",
                   "Add can_bus.zip as a second data root, or extract it here.")  # fmt: skip
    for tables in data.tables:
        row = _counts(tables.version)
        if data.can_bus and tables.can_missing is not None and row is not None:
            unexpected = sorted(set(tables.can_missing) - set(row["zero_can"]))
            if unexpected:
                yield warn(
                    f"{len(unexpected)} scene(s) have no CAN data and should, scene-{unexpected[0]:04} first",
                    "Extract can_bus.zip again, or name the archive itself as a data root.",
                )


def _infos_refused(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        if each.refused:
            yield fail(f"{each.path} asks for {each.refused}; it was not read further and nothing was run",
                       "Take it from someone you trust, or make it yourself.", PREPARE)  # fmt: skip


def _infos_broken(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        if each.broken:
            yield fail(
                f"{each.path} cannot be read: {each.broken}", "Make it again, or copy it again.", PREPARE
            )
        elif each.frames == 0:
            yield fail(f"{each.path} holds no frame", "Make it again from whole data.", PREPARE)


def _infos_keys(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        if each.lacking:
            yield fail(f"{each.path} lacks {', '.join(each.lacking[:4])}: another converter made it",
                       "Prepare it for BEVFormer.", PREPARE)  # fmt: skip


def _infos_convention(data: DataSet) -> Iterator[Verdict]:
    ratio = facts.row("nuscenes", "box-convention")["car_ratio"]
    for each in data.infos:
        third, fourth = each.car_third, each.car_fourth
        if third and fourth and third > ratio * fourth:
            yield fail(
                f"{each.path}: cars are {third:.2f} m by {fourth:.2f} m in columns 4 and 5, so boxes are "
                "(l,w,h,yaw) as in mmdet3d >= 1.0; BEVFormer's are (w,l,h,-yaw-pi/2)",
                "Prepare it anew; never mix the two.",
                PREPARE,
            )


def _infos_paths(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        if each.prefix and each.prefix_exists is False:
            yield info(f"{each.path} has {each.prefix} baked into its paths, which is not here",
                       "bevrepro reads below --data-root instead; upstream's tools will not.")  # fmt: skip


def _infos_counts(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        row = _counts(each.version)
        if row is not None and "frames" in row and each.frames and each.frames not in row["frames"]:
            yield warn(
                f"{each.path} has {each.frames} frames; {each.version} has {row['frames'][0]} for "
                f"training and {row['frames'][1]} for validation",
                "Scenes with missing files were dropped silently, or it is another set: compare nothing.",
                PREPARE,
            )


def _infos_can(data: DataSet) -> Iterator[Verdict]:
    for each in data.infos:
        row = _counts(each.version)
        if row is None or not each.zero_can_scenes:
            continue
        allowed = len(row["zero_can"]) if _is_train(each, row) else 0
        if each.zero_can_scenes > allowed:
            yield warn(
                f"{each.path}: {each.zero_can_scenes} scenes have zeros for CAN data, {allowed} are expected",
                "The converter writes zeros silently where can_bus/ is not whole: add it, prepare again.",
                PREPARE,
            )


def _is_train(infos: Infos, row: facts.Row) -> bool:
    return "frames" not in row or infos.frames == row["frames"][0]


CHECKS = (
    readable_check("data", "the data"),
    *mounts.CHECKS,
    Check("data-nothing", "data", "whether there is data", "There is nothing to train on.", _empty),
    Check("data-read-only", "data", "whether the data can be written",
          "Upstream's converter writes its pickles beside the data and stops there.", _read_only),
    Check("data-windows-drive", "data", "folders on Windows drives under WSL",
          "Hundreds of thousands of small files through a network protocol: many times slower.",
          _windows_drive),
    Check("archive-form", "data", "whether archives are what their names say, and whole",
          "A download that stopped or was refused leaves a file that breaks in the middle of a run.",
          _archive_form),
    Check("archive-unfinished", "data", "downloads that were not finished",
          "Their part of the data set is missing.", _unfinished),
    Check("archive-size", "data", "archives' sizes against the official ones",
          "A cut archive is read without any message: the last file is short, the rest is missing.",
          _archive_size),
    Check("archive-md5", "data", "archives' md5 against the official ones (--deep)",
          "A flipped bit is read without any message.", _archive_md5),
    Check("tables-missing", "data", "nuScenes' 13 tables", "The data set cannot be opened.", _tables_missing),
    Check("table-counts", "data", "numbers of scenes and samples", "Metrics are of another set.",
          _table_counts, (issue("worldbench/RoboBEV", 15),)),
    Check("sensor-files-missing", "data", "whether the tables' files are there",
          "Training stops at the first missing picture, or drops whole scenes.", _sensor_files),
    Check("maps-missing", "data", "the maps' folder", "nuScenes' devkit refuses to open the set.", _maps),
    Check("can-bus-missing", "data", "CAN data of every scene",
          "Ego motion becomes zero and temporal attention looks at the wrong place, silently.", _can_missing,
          (issue("nutonomy/nuscenes-devkit", 465),)),
    Check("infos-refused", "data", "whether infos are plain data",
          "A pickle can run any program when it is loaded as usual.", _infos_refused),
    Check("infos-broken", "data", "whether infos are whole", "Training stops when it loads them.",
          _infos_broken),
    Check("infos-keys", "data", "what infos hold of every frame",
          "The data set stops at a missing key, can_bus above all.", _infos_keys),
    Check("infos-convention", "data", "the box convention of infos",
          "mAP looks right, mASE is 0.71, mAOE 1.55 and NDS 0.10 too low.", _infos_convention,
          (issue("fundamentalvision/BEVFormer", 24), issue("fundamentalvision/BEVFormer", 91))),
    Check("infos-paths", "data", "paths baked into infos", "Upstream's data set looks for them there.",
          _infos_paths),
    Check("infos-counts", "data", "the number of frames in infos",
          "Metrics of fewer scenes are no published number's equal.", _infos_counts),
    Check("infos-zero-can", "data", "CAN data in infos",
          "BEVFormer aligns its history by them: zeros cost NDS.", _infos_can),
)  # fmt: skip


def examine_data(path: Path, deep: bool = False, mount: MountSeen | None = None) -> tuple[Finding, ...]:
    """All findings about `path`; `deep` hashes whole archives and looks for every keyframe's file."""
    return judge_all(replace(probe_data(path, deep), mount=mount), CHECKS)
