"""A line of a log as it was meant: without frames, timestamps, ranks and padding."""

import html
import re

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
# A question, a heading, a comment; a change log; advice; a search; a test or code that expects a failure;
# what git says of a commit.
_QUOTED = re.compile(
    r"(?:[QA问答]\d*[:.] ?|#{1,4} |// ?|> ?[QA#])"
    r"|(?:[-*+] |[0-9a-f]{7,12} )?(?:\[\w+\]:? ?)?(?:[Ff]ix(?:ed|es)?|[Aa]dd(?:ed|s)?|Support|Handle|Avoid"
    r"|Document|Improve|Work ?around|Catch|Prevent|Resolve[sd]?"
    r"|Solve[sd]?|Deprecate[sd]?|Allow|Report|Close[sd]?|修复)\b:? (?!ing)"
    r"|except \S|\[[\w/.-]+(?: HEAD)? [0-9a-f]{7,12}\] "
)
_QUOTING = re.compile(
    r"\b[Ii]f you (?:see|get|encounter|run into|hit)\b|(?:如果|若)[^,。]{0,12}(?:出现|遇到|报|中断)|属正常"
    r"|\b[ef]?grep |\bPASSED\b|\b[Cc]ould not apply [0-9a-f]{7}"
)
_ENTITY = re.compile(r"&(?:#\d{2,4}|quot|lt|gt|amp|apos|nbsp);")  # of a page that was copied
_QUOTING_WORDS = ("f you ", "grep ", "PASSED", "如果", "若", "正常", "not apply ")
# Of no width, and the directions of writing.
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u00ad"
_MAP = {ord(old): new for new, group in (
    ("'", "‘’‚‛`´＇"), ('"', "“”„＂«»"), (":", "："), (",", "，"), ("(", "（"), (")", "）"), ("[", "【"),
    ("]", "】"), (";", "；"), ("!", "！"), ("", INVISIBLE), ("-", "–—‐‑"),
    (" ", "\u00a0\u3000\u2028\u2029❱•●·"),
) for old in group}  # fmt: skip
_MAP |= dict.fromkeys((*range(32), *range(127, 160), *range(9472, 9632), *range(10240, 10496)), " ")
_ASCII_MAP = "".join(chr(code) for code in range(128)).translate(_MAP).encode() + bytes(range(128, 256))


def clean(line: bytes) -> str:
    """The message of one line, blanks collapsed; empty for what quotes messages instead of giving one."""
    text = strip_prefixes(" ".join(shown(line).split()))
    return "" if _quotes(text) else text


def _quotes(text: str) -> bool:
    if _QUOTED.match(text) or text.endswith("... ok"):
        return True
    # Looking for words first is ten times faster than the pattern alone.
    maybe = any(word in text for word in _QUOTING_WORDS)
    return maybe and _QUOTING.search(text) is not None


def shown(line: bytes) -> str:
    """The line with plain quotes and blanks for frames; widths as they were."""
    if line.isascii():
        text = line.translate(_ASCII_MAP).decode("ascii")
    else:
        text = decode(line).translate(_MAP)
    return html.unescape(text) if _ENTITY.search(text) else text


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
