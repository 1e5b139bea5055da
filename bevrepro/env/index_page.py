"""A page of a simple index or of links: the addresses of the files that it lists."""

import html.parser
import urllib.parse
from dataclasses import dataclass

from bevrepro.env.fetch import Via, is_local, opened


@dataclass(frozen=True)
class Link:
    """One file. `fragment` is what the page promises of it: `sha256=...`, or nothing."""

    name: str
    address: str
    fragment: str


def links(page: str, via: Via) -> list[Link]:
    """Every link of the page, in its order. Raises one of fetch.NETWORK, OSError, ValueError."""
    address = page + "index.html" if is_local(page) else page
    with opened(address, {"Accept": "text/html"}, via) as response:
        text = response.read().decode("utf-8", "replace")
    parser = _Links()
    parser.feed(text)
    return [_link(page, each) for each in parser.found]


def with_user(address: str, page: str) -> str:
    """A file's address with the user of its page: a private index wants the same one, and nobody says so."""
    file, own = urllib.parse.urlsplit(address), urllib.parse.urlsplit(page)
    if "@" in own.netloc and own.netloc.rpartition("@")[2] == file.netloc:
        return urllib.parse.urlunsplit(file._replace(netloc=own.netloc))
    return address


def _link(page: str, text: str) -> Link:
    address, _, fragment = urllib.parse.urljoin(page, text).partition("#")
    name = urllib.parse.unquote(address.rsplit("/", 1)[-1])
    return Link(name, with_user(address, page), fragment)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]
