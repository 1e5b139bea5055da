"""Whether this machine can mount through FUSE, and exactly what is missing where it cannot."""

import os

from bevrepro.core.machine import Fuse
from bevrepro.data.index import find_ratarmount
from bevrepro.probe.fuse import probe_fuse
from bevrepro.probe.host import probe_host

CONTAINER = "in a container: --device /dev/fuse --cap-add SYS_ADMIN"


def missing() -> tuple[str, ...]:
    """One sentence per thing that is missing here; empty where a mount can be tried."""
    return judge(probe_fuse(), probe_host().may_mount, os.geteuid() == 0, find_ratarmount() is not None)


def judge(fuse: Fuse, may_mount: bool | None, root: bool, program: bool) -> tuple[str, ...]:
    """Pure. What is unknown (None) does not stand in the way: the mount itself will say."""
    found = []
    if not program:
        found.append("the program ratarmount is not installed (python -m pip install ratarmount)")
    if fuse.device == "absent":
        found.append(f"there is no /dev/fuse (as root: modprobe fuse; {CONTAINER})")
    if fuse.device == "forbidden":
        found.append(f"/dev/fuse may not be opened (as root: chmod 666 /dev/fuse; {CONTAINER})")
    if fuse.libraries == ():
        found.append("no FUSE library is installed (as root: apt-get install fuse3)")
    if may_mount is False:
        found.append(f"the right to mount, CAP_SYS_ADMIN, is missing ({CONTAINER})")
    if not root and fuse.helpers == ():
        found.append("the program fusermount3 is not installed (as root: apt-get install fuse3)")
    return tuple(found)
