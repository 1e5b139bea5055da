"""`python -m bevformer VERB ...`: the model plane's programs, one module per verb."""

import errno
import importlib
import os
import sys
import traceback
from typing import List, Optional

from .errors import ConfigError, DiskError, UserError
from .talk import Talk

VERBS = {  # verb -> module with `main(argv, talk) -> exit code`
    "synth": "bevformer.data.synth.main",
    "prepare": "bevformer.data.prepare",
    "convert": "bevformer.data.convert",
    "train": "bevformer.train",
    "eval": "bevformer.evaluate",
    "describe": "bevformer.describe",
    "plan": "bevformer.plan",
    "bench": "bevformer.bench",
    "viz": "bevformer.viz",
    "store": "bevformer.data.store_main",
    "repack": "bevformer.data.repack_main",
    "data-bench": "bevformer.data.bench_main",
    "verify": "bevformer.data.verify_main",
    "extract": "bevformer.data.extract_main",
    "index": "bevformer.data.index_main",
}


def run(argv: List[str], talk: Talk) -> int:
    if not argv or argv[0] not in VERBS:
        raise ConfigError(
            "no such verb: %r" % (argv[0] if argv else ""), do="one of: " + ", ".join(sorted(VERBS))
        )
    return int(importlib.import_module(VERBS[argv[0]]).main(argv[1:], talk) or 0)


def main(argv: Optional[List[str]] = None) -> int:
    talk = Talk.from_environment()
    try:
        return run(sys.argv[1:] if argv is None else argv, talk)
    except UserError as error:
        if os.environ.get("BEVREPRO_DEBUG") == "1":
            traceback.print_exc()
        talk.error(error)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        talk.error(
            DiskError(
                "could not write %s: %s" % (error.filename or "a file", error.strerror),
                "Nothing that was finished before is lost.",
                "Free some space or name another folder, then run the same command again.",
            )
        )
        return DiskError.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
