"""A log as it comes, and a line of it as it was meant.

Reading keeps memory bounded: blocks of about a megabyte, cut at line ends. Cleaning takes away what is
not the message: colours, progress bars, frames, timestamps, ranks, padding.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_B = 1 << 20
LONGEST_LINE = 4000  # characters of one line that are looked at: its head and its tail
ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])|.\x08")

_PREFIX = re.compile(
    r"""\s*(?:
      \[(?:rank|default|local_?rank)\s?\d+\]:?\s            # [rank0]: torchrun
    | (?:rank|node|worker|host|gpu|npu|device|master)[-_\s]?[\w.-]{0,12}:\s
    | \[\d+,\d+\]\s?<std(?:out|err|diag)>:\s?               # [1,0]<stderr>: mpirun
    | \[(?:stderr|stdout)\]:?\s
    | \d{1,4}:\s                                            # 0: srun --label
    | \(\w+(?:_\w+)*\spid=\d+[^)\n]*\)\s                    # (RayTrainWorker pid=1, ip=...)
    | \#\d+\s+\d+\.\d+\s                                    # docker buildkit
    | [\w.-]{2,40}\s+\|\s                                   # docker compose
    | [>|]\s
    | [\[(]?\d{4}[-/]\d\d[-/]\d\d[T\s]\d\d:\d\d:\d\d(?:[.,]\d+)?\s?(?:Z|[+-]\d\d:?\d\d)?[\])]?[\s:,-]
    | [\[(]?\d\d:\d\d:\d\d(?:[.,]\d+)?[\])]?\s
    | [A-Z][a-z]{2}\s+\d{1,2}\s\d\d:\d\d:\d\d\s[\w.-]+\s    # syslog
    | [\w.-]+\[\d+\]:\s
    | \[?[EWIF]\d{3,4}\s[\d:.\s]+\d+[^\]\n]{0,60}\]\s       # glog
    | -?\s*[\w.]+\s-\s(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\s-\s
    | \[?(?:DEBUG|INFO|WARN(?:ING)?|CRITICAL)\]?[:\s]
    )""",
    re.VERBOSE,
)
# A question, a heading, a comment; a change log; advice; a search; a test or code that expects a failure.
_QUOTED = re.compile(
    r"^(?:[QA问答]\d*[:.] ?|#{1,4} |// ?|> ?[QA#])"
    r"|^(?:[-*+] |[0-9a-f]{7,12} )?(?:\[\w+\]:? ?)?(?:[Ff]ix(?:ed|es)?|[Aa]dd(?:ed|s)?|Support|Handle|Avoid"
    r"|Document|Improve|Work ?around|Catch|Prevent|Resolve[sd]?"
    r"|Solve[sd]?|Deprecate[sd]?|Allow|Report|Close[sd]?|修复)\b:? (?!ing)"
    r"|^except \S|\.\.\. ok$"
    r"|\b[Ii]f you (?:see|get|encounter|run into|hit)\b|如果(?:出现|遇到|报)|\b[ef]?grep |\bPASSED\b"
)
_MAP = {ord(old): new for new, group in (
    ("'", "‘’‚‛`´＇"), ('"', "“”„＂«»"), (":", "："), (",", "，"), ("(", "（"), (")", "）"), ("[", "【"),
    ("]", "】"), (";", "；"), ("!", "！"), ("", "\u200b\u200c\u200d\ufeff\u00ad"), ("-", "–—‐‑"),
    (" ", "\u00a0\u3000\u2028\u2029❱•●·"),
) for old in group}  # fmt: skip
_MAP |= dict.fromkeys((*range(32), *range(127, 160), *range(9472, 9632), *range(10240, 10496)), " ")


@dataclass(frozen=True)
class Block:
    """Some whole lines. `numbers[i]` is the line of the file that `lines[i]` is (a part of)."""

    lines: list[bytes]
    numbers: list[int] | range


def blocks(stream: BinaryIO) -> Iterator[Block]:
    """The stream as blocks of lines in UTF-8 (or what was there), without colours; 1-based numbers."""
    number = 1
    for text in _cut_at_lines(_as_utf8(stream)):
        yield (block := _split(text, number))
        number = block.numbers[-1] + (1 if text.endswith(b"\n") else 0)


def clean(line: bytes) -> str:
    """The message of one line, blanks collapsed; empty for what quotes messages instead of giving one."""
    text = strip_prefixes(" ".join(shown(line).split()))
    return "" if _QUOTED.search(text) else text


def shown(line: bytes) -> str:
    """The line with plain quotes and blanks for frames; widths as they were."""
    text = decode(line)
    if len(text) > LONGEST_LINE:
        text = text[: LONGEST_LINE * 3 // 4] + " ... " + text[-LONGEST_LINE // 4 :]
    return text.translate(_MAP)


def strip_prefixes(text: str) -> str:
    """Without timestamps, ranks and names of loggers in front."""
    text += " "
    for _ in range(6):
        match = _PREFIX.match(text)
        if not match or not match.end():
            break
        text = text[match.end() :]
    return text.strip()


def decode(line: bytes) -> str:
    """UTF-8, else the Chinese Windows encoding, else whatever the bytes are."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def _as_utf8(stream: BinaryIO) -> Iterator[bytes]:
    first = stream.read(BLOCK_B)
    encoding = _utf16(first[:4096])
    if encoding is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        while data := stream.read(BLOCK_B):
            yield data
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    while first:
        yield decoder.decode(first).lstrip("\ufeff").encode("utf-8", "replace")
        first = stream.read(BLOCK_B)


def _utf16(head: bytes) -> str | None:
    for bom, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(bom):
            return name
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 > len(head) and min(even, odd) * 8 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _cut_at_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        rest += piece
        cut = rest.rfind(b"\n") + 1
        if not cut and len(rest) > 4 * BLOCK_B:  # a "line" of megabytes: a progress bar, or no text
            cut = max(rest.rfind(b"\r") + 1, BLOCK_B)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _split(text: bytes, number: int) -> Block:
    if b"\x00" in text:
        text = text.replace(b"\x00", b"")
    if b"\x1b" in text or b"\x08" in text:
        text = ANSI.sub(b"", text)
    text = text.removesuffix(b"\n")
    if b"\r" not in text:
        lines = text.split(b"\n")
        return Block(lines, range(number, number + len(lines)))
    lines, numbers = [], []
    for offset, line in enumerate(text.split(b"\n")):
        parts = line.rstrip(b"\r").split(b"\r")
        lines += parts
        numbers += [number + offset] * len(parts)
    return Block(lines, numbers)
