#!/bin/sh
# First step of every image: is this base one to build on; Debian packages; the user. Leaves no cache, list or log.
#   sh system.sh ARCHITECTURE PACKAGE...
set -eu

stop() {
    echo "bevrepro: $1" >&2
    exit 1
}

command -v apt-get > /dev/null || stop "this base has no apt-get: name one of Debian 12 or Ubuntu 22.04 or newer as BASE"
here=$(dpkg --print-architecture)
wanted=$1
shift
[ "$here" = "$wanted" ] || stop "this base is for $here, the target's lock for $wanted: name a base (or --platform) for that"

export DEBIAN_FRONTEND=noninteractive
# A mirror handed in as the secret `sources` is used for this one step; the base keeps its own.
sources=/run/bevrepro/sources.list
if [ -s "$sources" ]; then
    set -- -o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=- "$@"
fi
apt-get update || stop "Debian's packages cannot be reached: hand in a mirror as the secret sources (--apt-sources)"
apt-get install --yes --no-install-recommends "$@"
# The distribution's, whatever Python of its own the base has first on PATH (3.8 for OpenMMLab 1.x).
/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
    || stop "the python3 of this base's distribution is $(/usr/bin/python3 -V 2>&1 | cut -d ' ' -f 2); bevrepro runs on 3.10 or newer: name a newer base"

# SOURCE_DATE_EPOCH (an argument of the build) keeps the day out of /etc/shadow.
useradd --uid "$USER_ID" --non-unique --create-home --shell /bin/bash bevrepro
mkdir -p /work /opt/bevrepro
chown "$USER_ID" /work

apt-get clean
find /var/log -type f -delete
find /var/lib/apt/lists -mindepth 1 -delete
rm -rf /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
