"""Downloads of known sha256 from a mirror that misbehaves."""

import hashlib

import pytest

from bevrepro.env.fetch import NotFetched, as_url, fetch, join, plain

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def get(mirror, tmp_path):
    mirror.add("file", CONTENT)

    def call(*urls, sha256=SHA256):
        addresses = urls or (f"{mirror.url}/file",)
        return fetch("file", addresses, sha256, len(CONTENT), tmp_path / "cache" / "file")

    return call


def test_a_file_gets_its_name_when_it_was_checked(get, mirror):
    assert get().read_bytes() == CONTENT
    get()
    assert len(mirror.asked) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_stopped(get, mirror):
    mirror.cut["file"] = [1000]
    assert get().read_bytes() == CONTENT
    assert [ask[1] for ask in mirror.asked] == [None, "bytes=1000-"]


def test_what_a_killed_command_left_is_gone_on_with(get, mirror, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.part").write_bytes(CONTENT[:5000])
    assert get().read_bytes() == CONTENT
    assert mirror.asked[0][1] == "bytes=5000-"


def test_a_server_that_does_not_resume_sends_all_again(get, mirror, tmp_path):
    mirror.ranges = False
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.part").write_bytes(b"something else")
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 5000, CONTENT[:5000] + b"x" * 4096, CONTENT + b"x"])
def test_a_left_part_that_was_damaged_is_noticed_and_all_fetched_anew(get, tmp_path, left):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.part").write_bytes(left)
    assert get().read_bytes() == CONTENT


def test_another_content_never_gets_the_name(get, tmp_path):
    with pytest.raises(NotFetched, match="not the file that was measured") as caught:
        get(sha256="0" * 64)
    assert caught.value.altered and list((tmp_path / "cache").iterdir()) == []


def test_a_truncated_file_is_named_as_such(get, mirror):
    mirror.files["file"] = CONTENT[:-1]
    with pytest.raises(NotFetched, match="it ended after 1048575 of 1048576 bytes"):
        get()


def test_a_file_without_end_is_stopped(get, mirror, tmp_path):
    mirror.files["file"] = CONTENT * 5
    with pytest.raises(NotFetched, match="larger than 1048576 bytes"):
        get()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_next_address_is_asked_and_every_failure_told(get, mirror):
    assert get("http://127.0.0.1:9/x", f"{mirror.url}/none", f"{mirror.url}/file").read_bytes() == CONTENT
    with pytest.raises(NotFetched) as caught:
        get("http://127.0.0.1:9/x", f"{mirror.url}/none", sha256="1" * 64)
    assert "Connection refused" in caught.value.tried[0] and "HTTP 404" in caught.value.tried[1]


def test_a_password_is_sent_and_never_shown(get, mirror):
    with_user = mirror.url.replace("http://", "http://me:secret%21@")
    get(f"{with_user}/file")
    assert mirror.asked[0][2] == "Basic bWU6c2VjcmV0IQ=="
    with pytest.raises(NotFetched) as caught:
        get(f"{with_user}/none", sha256="1" * 64)
    assert "secret" not in str(caught.value) and plain(with_user) == mirror.url


def test_a_folder_is_a_mirror_too(get, tmp_path):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "file~1+2").write_bytes(CONTENT)
    address = join(as_url(str(tmp_path / "a folder")), "file~1+2")
    assert get(address).read_bytes() == CONTENT
