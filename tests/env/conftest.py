"""A mirror on localhost that can be told to misbehave, and small packages with which to fill it."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Mirror:
    """`files` by path; `ranges` False: answers for no part; `cut`: stop after so many bytes, once each."""

    def __init__(self, url):
        self.url = url
        self.files = {}
        self.asked = []
        self.ranges = True
        self.cut = {}

    def add(self, path, content):
        self.files[path] = content
        return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def handler_of(mirror):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/").replace("%2B", "+")
            wish = self.headers.get("Range") if mirror.ranges else None
            mirror.asked.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
            if path not in mirror.files:
                return self.send_error(404)
            whole = mirror.files[path]
            start, end = 0, len(whole)
            if wish:
                first, _, last = wish.removeprefix("bytes=").partition("-")
                start, end = int(first), int(last) + 1 if last else end
            self.send_response(206 if wish else 200)
            self.send_header("Content-Length", str(min(end, len(whole)) - start))
            self.end_headers()
            limit = mirror.cut.get(path, [len(whole)])
            self.wfile.write(whole[start : min(end, start + (limit.pop(0) if limit else len(whole)))])

        def log_message(self, *words):
            pass

    return Handler


@pytest.fixture
def mirror():
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda request, address: None  # a client that had enough and hung up
    made = Mirror(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = handler_of(made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def tar_of(members, mode="w:xz"):
    """`members`: name -> bytes, or a prepared TarInfo's changes as a dict."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if "/bin/" in name else 0o644
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(info, key, value)
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def deb_of(members, mode="w:xz"):
    """An ar archive as dpkg writes it: an odd member is padded."""
    suffix = mode.partition(":")[2]
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", tar_of({"./control": b"x"}))]
    parts.append((f"data.tar.{suffix}".rstrip("."), tar_of(members, mode)))
    out = b"!<arch>\n"
    for name, content in parts:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        out += header.encode() + content + b"\n" * (len(content) % 2)
    return out


def wheel_of(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if "/bin/" in name else 0o644) << 16
            if isinstance(content, dict):
                info.external_attr = content["mode"] << 16
                content = content["content"]
            archive.writestr(info, content)
    return out.getvalue()


@pytest.fixture
def pack():
    """The three kinds of packages a recipe's parts can be."""

    class Pack:
        tar, deb, wheel = staticmethod(tar_of), staticmethod(deb_of), staticmethod(wheel_of)

    return Pack
