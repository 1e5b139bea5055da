"""pip's settings as uv gets them."""

import os

import pytest

from bevrepro.env.index import Index, config_files, configured


def files(tmp_path, *texts):
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.conf")
        paths[-1].write_text(text)
    return paths


def test_later_files_win_and_the_section_of_install_over_global(tmp_path):
    two = files(
        tmp_path,
        "[global]\nindex-url = https://a/simple\n[install]\nfind-links = /one\n  /two\n",
        "[global]\nindex-url = https://b/simple\nfind-links = /never\ncert = /ca.pem\n",
    )
    found = configured({}, two)
    assert found.index_url == "https://b/simple" and found.cert == "/ca.pem"
    assert found.find_links == ("/one", "/two")


def test_variables_win_over_files(tmp_path):
    env = {
        "PIP_INDEX_URL": "https://c/simple",
        "PIP_EXTRA_INDEX_URL": "https://d https://e",
        "PIP_NO_INDEX": "0",
    }
    found = configured(env, files(tmp_path, "[global]\nindex-url = https://a/simple\nno-index = yes\n"))
    assert found == Index(index_url="https://c/simple", extra=("https://d", "https://e"))


def test_uvs_own_variables_stand(tmp_path):
    found = configured(
        {"UV_DEFAULT_INDEX": "https://u"}, files(tmp_path, "[global]\nindex-url = https://a\n")
    )
    assert found.index_url is None and found.extra == ()


@pytest.mark.parametrize("text", ["no section\n", "[global\n", "\xff\xfe", "[global]\nindex-url\n"])
def test_a_broken_file_is_passed_over(tmp_path, text):
    assert configured({}, files(tmp_path, text)).index_url is None


def test_an_option_comes_before_everything():
    own = Index(index_url="https://a", extra=("https://x",), find_links=("/",), no_index=True)
    found = own.also("https://mirror", ["/usr", "/not/there"])
    assert found.arguments()[2:] == [
        "--index-url",
        "https://mirror",
        "--find-links",
        "/usr",
        "--find-links",
        "/",
    ]


def test_no_index_means_folders_only():
    words = Index(index_url="https://a", extra=("https://b",), find_links=("/w",), no_index=True).arguments()
    assert "--no-index" in words and "https://a" not in words and "https://b" not in words


def test_certificates_proxy_and_patience_are_handed_on():
    env = Index(cert="/ca.pem", proxy="http://p:3128", timeout_s=7).environment(
        {"PYTHONPATH": "/x", "A": "b"}
    )
    assert env["SSL_CERT_FILE"] == "/ca.pem" and env["UV_SYSTEM_CERTS"] == "1" and env["A"] == "b"
    assert env["HTTPS_PROXY"] == "http://p:3128" and env["UV_HTTP_TIMEOUT"] == "7" and "PYTHONPATH" not in env


def test_pips_own_switch_for_no_files_is_honoured():
    assert config_files({"PIP_CONFIG_FILE": os.devnull, "HOME": "/h"}) == []
    assert str(config_files({"PIP_CONFIG_FILE": "/own.conf", "HOME": "/h"})[-1]) == "/own.conf"
