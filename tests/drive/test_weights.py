"""Weights from a server on localhost that cuts, changes, forgets ranges and lies."""

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from bevrepro import cli
from bevrepro.core.errors import CheckpointError, ConfigError, DiskError
from bevrepro.drive import weights
from bevrepro.drive.weights import PUBLISHED, REPORTED, TOLD_BY_NAME, WHOLE, Weights, check, get

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """`cut`: bytes after which the next answers end; `ranges`, `etag`, `length` False: it has none."""

    def __init__(self):
        self.content, self.cut, self.asked = CONTENT, [], []
        self.ranges = self.length = True
        self.etag = '"one"'


def handler_of(served):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wish, condition = self.headers.get("Range"), self.headers.get("If-Range")
            served.asked.append(wish)
            if not self.path.endswith("w.pth"):
                return self.send_error(404)
            part = served.ranges and wish and condition in (None, served.etag)
            start = int(wish.removeprefix("bytes=").rstrip("-")) if part else 0
            if part and start >= len(served.content):
                return self.send_error(416)
            self.send_response(206 if part else 200)
            body = served.content[start:]
            if served.length:
                self.send_header("Content-Length", str(len(body)))
            if part:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}"
                )
            if served.etag:
                self.send_header("ETag", served.etag)
            self.end_headers()
            self.wfile.write(body[: served.cut.pop(0) if served.cut else len(body)])

        def log_message(self, *words):
            pass

    return Handler


@pytest.fixture
def server(monkeypatch):
    """Nothing here is a checkpoint: that look is left to test_a_file_that_is_no_checkpoint..."""
    monkeypatch.setattr(weights, "_require_whole", lambda wanted, path: None)
    served = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    http.handle_error = lambda request, address: None
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    served.wanted = Weights(
        "w", "w.pth", "initial", "x", "here", f"http://127.0.0.1:{http.server_port}/w.pth"
    )
    yield served
    http.shutdown()
    http.server_close()


def test_a_file_is_fetched_once_and_gets_its_name_last(server, tmp_path):
    got = get(replace(server.wanted, sha256=SHA256, size=len(CONTENT)), tmp_path)
    assert got.path.read_bytes() == CONTENT and got.by == PUBLISHED and not got.was_there
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
    assert get(server.wanted, tmp_path).was_there and len(server.asked) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.cut = [1000, 5000]
    assert get(server.wanted, tmp_path).sha256 == SHA256
    assert server.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_the_next_command_goes_on_where_the_last_gave_up(server, tmp_path):
    server.cut = [1000, 1000, 1000]
    with pytest.raises(CheckpointError, match="ended after 3000 bytes") as caught:
        get(server.wanted, tmp_path)
    assert "3000 bytes are kept" in caught.value.why and "Bring it from elsewhere" in caught.value.do
    assert get(server.wanted, tmp_path).sha256 == SHA256 and server.asked[-1] == "bytes=3000-"


def test_what_ctrl_c_left_is_gone_on_with(server, tmp_path):
    server.cut = [300_000]

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server.wanted, tmp_path, on_event=stop)
    assert (tmp_path / "w.pth.part").is_file() and not (tmp_path / "w.pth").exists()
    assert get(server.wanted, tmp_path).sha256 == SHA256 and server.asked == [None, "bytes=300000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.cut = False, [1000]
    assert get(server.wanted, tmp_path).sha256 == SHA256


def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path):
    server.cut = [1000, 1000, 1000]
    with pytest.raises(CheckpointError):
        get(server.wanted, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert get(server.wanted, tmp_path).path.read_bytes() == CONTENT[::-1]


def test_what_was_left_and_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "w.pth.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert get(server.wanted, tmp_path).sha256 == SHA256


@pytest.mark.parametrize("changes, words", [
    ({"sha256": "0" * 64}, "another file"), ({"prefix": "0676ba61"}, "another file"),
    ({"size": len(CONTENT) + 1}, "ended after 512000 bytes"), ({"size": 10}, "another file"),
    ({"size": 10, "told": True}, "has 512000 bytes"),
])  # fmt: skip
def test_a_wrong_file_never_gets_the_name_nor_is_it_gone_on_with(server, tmp_path, changes, words):
    server.length = changes.pop("told", "size" not in changes)
    with pytest.raises(CheckpointError) as caught:
        get(replace(server.wanted, **changes), tmp_path)
    text = f"{caught.value.seen} {caught.value.why}"
    assert words in text and not (tmp_path / "w.pth").exists()
    assert "Delete it" not in caught.value.do
    server.length = True
    get(server.wanted, tmp_path)


@pytest.mark.parametrize("changes, by, note", [
    ({"sha256": SHA256}, PUBLISHED, False), ({"prefix": SHA256[:8]}, TOLD_BY_NAME, False),
    ({"reported_sha256": SHA256}, REPORTED, False), ({"reported_sha256": "1" * 64}, WHOLE, True),
    ({}, WHOLE, False),
])  # fmt: skip
def test_what_decided_is_said(server, tmp_path, changes, by, note):
    (tmp_path / "w.pth").write_bytes(CONTENT)
    got = check(replace(server.wanted, **changes), tmp_path / "w.pth")
    assert got.by == by and bool(got.note) == note


def test_a_mirror_is_an_address_or_a_folder(server, tmp_path):
    wanted = replace(server.wanted, url="http://127.0.0.1:9/w.pth", sha256=SHA256)
    base = server.wanted.url.rpartition("/")[0]
    assert get(wanted, tmp_path / "a", base).sha256 == SHA256
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "w.pth").write_bytes(CONTENT)
    assert get(wanted, tmp_path / "b", str(tmp_path / "stick")).sha256 == SHA256
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        get(wanted, tmp_path / "c", str(tmp_path / "nothing"))


def test_a_full_disk_is_a_sentence_and_keeps_nothing_under_the_name(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "weights", lambda name: server.wanted)
    (tmp_path / "w.pth.part").symlink_to("/dev/full")
    assert cli.main(["weights", "get", "w", "--into", str(tmp_path)]) == 8
    said = capsys.readouterr().err
    assert "w.pth.part: No space left" in said and "goes on with it" in said
    assert not (tmp_path / "w.pth").exists()


def test_a_file_that_cannot_fit_is_not_begun(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(DiskError, match="1 MB free, 1 MB are to come"):
        get(server.wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_a_folder_that_cannot_be_written_is_a_sentence(server, tmp_path, monkeypatch, capsys, error):
    def refuse(*words, **more):
        raise error

    monkeypatch.setattr(weights, "weights", lambda name: server.wanted)
    monkeypatch.setattr(weights.Path, "mkdir", refuse)
    assert cli.main(["weights", "get", "w", "--into", str(tmp_path / "ckpts")]) == 8
    assert error.strerror in capsys.readouterr().err and server.asked == []


def test_an_address_without_the_file_is_asked_once(server, tmp_path):
    with pytest.raises(CheckpointError, match="HTTP 404"):
        get(replace(server.wanted, url=server.wanted.url.replace("w.pth", "gone")), tmp_path)
    assert len(server.asked) == 1


def test_what_cannot_be_downloaded_says_where_to_put_it(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be downloaded") as caught:
        get(weights.weights("paddle3d_tiny"), tmp_path)
    assert str(tmp_path / "bevformer_tiny_paddle3d.pth") in caught.value.do


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"<html>sign in</html>")
    with pytest.raises(CheckpointError):
        check(Weights("w", "w.pth", "published", "x", "here"), tmp_path / "w.pth")


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match="no weights are called x") as caught:
        weights.weights("x")
    assert "bevformer_tiny" in caught.value.why


def test_on_the_command_line(tmp_path, capsys):
    assert cli.main(["weights", "list", "--into", str(tmp_path), "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["bevformer_tiny"]["sha256"] is None and rows["resnet50"]["sha256_prefix"] == "0676ba61"
    assert cli.main(["weights", "list", "--into", str(tmp_path)]) == 0
    assert "sha256: unknown" in capsys.readouterr().out
    assert cli.main(["weights", "get", "resnet50", "--into", str(tmp_path), "--dry-run"]) == 0
    assert cli.main(["weights", "verify", "resnet50", "--into", str(tmp_path)]) == 7
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"cut")
    assert cli.main(["weights", "verify", "resnet50", "--into", str(tmp_path)]) == 7
    assert "has 3 bytes" in capsys.readouterr().err
