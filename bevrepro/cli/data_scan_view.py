"""A scan for a terminal: a line per archive and folder, a paragraph per task."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bevrepro.data.catalogue import gb
from bevrepro.data.needs import State
from bevrepro.data.scan import Item, Scan, download_command, download_page
from bevrepro.probe.extracted import Extracted
from bevrepro.probe.files import printable

MARKS = {
    "used": ("✓", "bold green"),
    "spare": ("=", "dim"),
    "not-needed": ("-", "dim"),
    "foreign": ("-", "dim"),
    "join": ("!", "bold yellow"),
    "bad": ("✗", "bold red"),
}
ASCII = str.maketrans({"✓": "+", "✗": "x"})
SHORT = 3  # archives told of a task that nobody asked for by name


def print_scan(found: Scan, task: str | None) -> None:
    """Archives and folders, then tasks. Where one task was asked for, all about it."""
    console = Console(highlight=False)
    if not found.items and not found.folders:
        console.print(
            Text(
                "No archive of nuScenes and no data set is here; is a disk or mount missing?", style="yellow"
            )
        )
    for item in found.items:
        _print_item(console, item)
    for folder in found.folders:
        _print_folder(console, folder)
    for note in found.notes:
        console.print(Text(f"! {note}", style="yellow"))
    console.print()
    shown = [state for state in found.states if task in (None, state.task.id)]
    for state in shown:
        _print_state(console, state, in_full=task is not None)
    if any(not state.complete for state in shown):
        console.print(
            Text(f"Archives come from {download_page()}: an account and the Terms of Use come first.")
        )
    if any(item.use == "used" for item in found.items) and not found.bad:
        console.print(Text("Next: bevrepro data verify, then bevrepro data mount or prepare.", style="dim"))


def _print_item(console: Console, item: Item) -> None:
    mark, style = MARKS[item.use]
    row = _grid(1)
    line = Text(printable(item.path.name), "bold")
    line.append(f"  {gb(item.inside.size_b)}", "not bold")
    line.append(f"  {_what(item)}" if _what(item) else "", "not bold")
    row.add_row(Text(_shown(console, mark), style), line)
    if _why(item):
        row.add_row("", Text(f"  {_why(item)}", "" if item.use in ("bad", "join") else "dim"))
    console.print(row)


def _what(item: Item) -> str:
    one = item.identity
    part = f", part {one.part}" if one.part else ""
    older = ", older generation" if one.entry and one.entry.generation == "older" else ""
    words = {
        "meta": "tables",
        "blobs": "all sensors",
        "keyframes": "keyframes of all sensors",
        "camera": "cameras",
        "can_bus": "CAN data",
        "map": "vector maps",
        "mini": "ten scenes with their tables",
        "set": "a set with its tables",
    }
    kind = words.get(one.kind, one.kind)
    return f"{kind}{part}{older}" if kind else ""


def _why(item: Item) -> str:
    """What is worth saying besides what it is."""
    said = item.identity.said
    if item.use == "spare":
        return f"not needed: other archives hold the same{'; ' + said if said else ''}"
    if item.use == "not-needed":
        return "not needed by any task here"
    if item.use == "foreign":
        return said or "not one of nuScenes' archives"
    return said


def _print_folder(console: Console, folder: Extracted) -> None:
    row = _grid(1)
    if folder.error:
        row.add_row(Text(_shown(console, "✗"), "bold red"), Text(f"{printable(folder.path)}: {folder.error}"))
    else:
        row.add_row(
            Text(_shown(console, "✓"), "bold green"),
            Text(f"{printable(folder.path)}: {_folder_words(folder)}"),
        )
    console.print(row)


def _folder_words(folder: Extracted) -> str:
    words = []
    for version, lacking in folder.tables.items():
        words.append(f"tables of {version}" + (f" without {', '.join(lacking[:3])}" if lacking else ""))
    cameras = [
        count for name, count in folder.samples.items() if name.startswith("CAM") and count is not None
    ]
    if cameras:
        words.append(f"{min(cameras):,} keyframes of {len(cameras)} cameras")
    elif folder.samples:
        words.append(
            "keyframes (too many to count in time)" if None in folder.samples.values() else "keyframes"
        )
    if any(folder.sweeps.values()):
        words.append("sweeps")
    if folder.can_scenes is not None:
        words.append(f"CAN data of {folder.can_scenes:,} scenes")
    if folder.expansion:
        words.append("vector maps")
    return ", ".join(words) or "empty folders"


def _print_state(console: Console, state: State, in_full: bool) -> None:
    mark, style = MARKS["used"] if state.complete else ("o", "bold yellow")
    row = _grid(1, 6)
    if state.complete:
        words = f"{state.task.title}: complete"
    else:
        lacks = f"{len(state.missing)} of {state.of} pieces missing"
        words = f"{state.task.title}: {lacks}, {gb(state.fetch_b)} to fetch"
    row.add_row(Text(_shown(console, mark), style), Text(state.task.id, "bold"), Text(words))
    console.print(row)
    told = state.fetch if in_full else state.fetch[:SHORT]
    for each in told:
        size = (
            "size not known" if each.size_b is None else gb(each.size_b) + (" at most" if each.about else "")
        )
        console.print(Text(f"         {each.name}  {size}", "dim"), soft_wrap=True)
    if len(state.fetch) > len(told):
        more = (
            f"         and {len(state.fetch) - len(told)} more: bevrepro data scan DIR --task {state.task.id}"
        )
        console.print(Text(more, "dim"), soft_wrap=True)
    if in_full and state.fetch:
        console.print(Text("Each can be fetched again where it stopped (the public bucket; unverified):"))
        for each in state.fetch:
            console.print(Text(f"$ {download_command(each.name)}", "cyan"), soft_wrap=True)


def _shown(console: Console, mark: str) -> str:
    return mark.translate(ASCII) if console.options.ascii_only else mark


def _grid(*widths: int) -> Table:
    grid = Table.grid(padding=(0, 1))
    for width in widths:
        grid.add_column(width=width, overflow="fold")
    grid.add_column(ratio=1, overflow="fold")
    return grid
