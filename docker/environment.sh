#!/bin/sh
# The target's environment, self-test included, then everything away that tells when and how long it was built.
set -eu
. /run/bevrepro/docker/sources.sh

prefix=/opt/bevrepro/env
export HOME=/tmp/home
export BEVREPRO_CACHE=/var/cache/bevrepro UV_CACHE_DIR=/var/cache/bevrepro/uv UV_PYTHON_INSTALL_DIR=/opt/bevrepro/python
# bevrepro's own bytecode first: what Python writes when it starts carries the time of day.
for folder in bevrepro envs; do
    sh /run/bevrepro/docker/bytecode.sh /opt/bevrepro/control/bin/python "/opt/bevrepro/src/$folder"
done
bevrepro env build --target "$TARGET" --prefix "$prefix"
sh /run/bevrepro/docker/bytecode.sh "$prefix/bin/python" "$prefix/lib"
sh /run/bevrepro/docker/bytecode.sh "$prefix/bin/python" /opt/bevrepro/src/model
/opt/bevrepro/control/bin/python -I /run/bevrepro/docker/settle.py "$prefix" "$SOURCE_DATE_EPOCH"
bevrepro env verify --prefix "$prefix"

rm -rf "$prefix"/bevrepro-env.log "$prefix"/bevrepro-steps "$prefix".builds/.lock
find /tmp /var/tmp -mindepth 1 -delete
