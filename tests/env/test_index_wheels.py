"""Wheels found on the index that pip and uv are set up for, and parts of them read over the network."""

import hashlib
import io
import random
import zipfile

import pytest

from bevrepro.core import proc
from bevrepro.env import index, index_wheels
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.fetch import NotFetched, Via
from bevrepro.env.index_wheels import Indexes, addresses, members_of
from bevrepro.env.unpack import members, members_digest

LIBRARY = random.Random(0).randbytes(3 << 20)  # does not compress
FILE = "nvidia_cublas-13.1-py3-none-manylinux_2_27_x86_64.whl"
TAKE = (("nvidia/cu13/include", "include"),)


@pytest.fixture
def shop(mirror, pack):
    """An index with one wheel, most of it a library, and the part that takes its headers."""
    content = pack.wheel({"nvidia/cu13/include/cublas.h": b"int x;", "nvidia/cu13/lib/libcublas.so": LIBRARY})
    row = mirror.add(f"files/{FILE}", content)
    page = f'<a href="../../files/{FILE}#sha256={row["sha256"]}">{FILE}</a> <a href="x-1.whl">x</a>'
    mirror.add("simple/nvidia-cublas/", page.encode())
    part = Part("wheel", "nvidia-cublas", "13.1", FILE, row["sha256"], row["size"], TAKE)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        digest = members_digest(members(part, archive))
    return Part(**{**vars(part), "members_sha256": digest}), Indexes((f"{mirror.url}/simple",))


def test_a_wheel_is_found_by_its_page(shop, mirror):
    part, indexes = shop
    assert addresses(part, indexes) == [f"{mirror.url}/files/{FILE}"]


def test_a_page_that_promises_another_hash_does_not_have_it(shop, mirror):
    part, indexes = shop
    mirror.add("simple/nvidia-cublas/", f'<a href="/{FILE}#sha256={"0" * 64}">x</a>'.encode())
    with pytest.raises(NotFetched, match="does not list"):
        addresses(part, indexes)


def test_the_next_index_is_asked_and_all_are_named(shop, mirror):
    part, indexes = shop
    assert addresses(part, Indexes((f"{mirror.url}/none", *indexes.simple)))
    with pytest.raises(NotFetched) as caught:
        addresses(part, Indexes((f"{mirror.url}/none", "file:///none", "http://127.0.0.1:9")))
    assert len(caught.value.tried) == 3 and "HTTP 404" in caught.value.tried[0]


def test_no_index_at_all_is_said(shop):
    with pytest.raises(NotFetched, match="no package index is set up"):
        addresses(shop[0], Indexes(()))


def test_the_user_of_a_private_index_is_kept_for_its_files(shop, mirror):
    part, indexes = shop
    private = indexes.simple[0].replace("http://", "http://me:secret@")
    assert addresses(part, Indexes((private,)))[0].startswith("http://me:secret@127.0.0.1")


def test_a_folder_of_wheels_comes_first(shop, tmp_path):
    part, indexes = shop
    (tmp_path / FILE).write_bytes(b"")
    assert addresses(part, Indexes(indexes.simple, (str(tmp_path),)))[0] == (tmp_path / FILE).as_uri()


def test_a_page_of_links_is_asked_too(shop, mirror):
    part, indexes = shop
    mirror.add("links.html", mirror.files["simple/nvidia-cublas/"].replace(b"../../", b""))
    found = addresses(part, Indexes((), (f"{mirror.url}/links.html",)))
    assert found == [f"{mirror.url}/files/{FILE}"]


def test_headers_are_read_without_the_library_beside_them(shop, mirror):
    part, indexes = shop
    (found,) = members_of(part, addresses(part, indexes), Via()) or []
    assert (found.place, found.content) == ("include/cublas.h", b"int x;")
    spans = [ask[1].removeprefix("bytes=").split("-") for ask in mirror.asked if ask[1]]
    assert sum(int(last) - int(first) + 1 for first, last in spans) < 1 << 20


def test_other_headers_than_those_measured_are_refused(shop):
    part, indexes = shop
    other = Part(**{**vars(part), "members_sha256": "0" * 64})
    with pytest.raises(NotFetched, match="headers are not those") as caught:
        members_of(other, addresses(part, indexes), Via())
    assert caught.value.altered


def test_a_server_without_ranges_leaves_it_to_the_whole_file(shop, mirror):
    part, indexes = shop
    mirror.ranges = False
    assert members_of(part, addresses(part, indexes), Via()) is None


@pytest.fixture
def settings(monkeypatch):
    def call(said="", **index_settings):
        index_wheels.configured.cache_clear()
        monkeypatch.setattr(index, "configured", lambda: index.Index(**index_settings))
        monkeypatch.setattr(proc, "run", lambda *words, **more: proc.Done(0, said, ""))
        return index_wheels.configured()

    yield call
    index_wheels.configured.cache_clear()


def test_pips_index_is_asked_before_uvs_default(settings):
    assert settings(index_url="https://a.example/simple", extra=("https://b.example",)).simple == (
        "https://a.example/simple",
        "https://b.example",
    )
    assert settings("--index-url https://c.example/simple\n").simple == ("https://c.example/simple",)


def test_proxy_certificates_and_no_index_are_heeded(settings):
    assert settings(proxy="http://p.example:3128", cert="/c.pem").via == Via(
        "http://p.example:3128", "/c.pem"
    )
    assert settings(no_index=True, find_links=("/w",)) == Indexes((), ("/w",))


def test_sha256_of_the_whole_wheel_is_what_the_page_names(shop, mirror):
    assert hashlib.sha256(mirror.files[f"files/{FILE}"]).hexdigest() == shop[0].sha256
