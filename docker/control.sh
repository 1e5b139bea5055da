#!/bin/sh
# bevrepro's own environment, which builds, checks and starts the target's: hashed requirements, no index named.
set -eu
. /run/bevrepro/docker/sources.sh

control=/opt/bevrepro/control
/usr/bin/python3 -m venv "$control"
"$control/bin/python" -m pip install --no-deps --require-hashes --only-binary :all: --no-compile --no-cache-dir \
    --progress-bar off --disable-pip-version-check --requirement /run/bevrepro/docker/control.txt
# The sources are copied beside it, in the layout of a checkout.
echo /opt/bevrepro/src > "$("$control/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bevrepro.pth"
printf '#!/bin/sh\nexec %s -I -m bevrepro "$@"\n' "$control/bin/python" > /usr/local/bin/bevrepro
chmod 755 /usr/local/bin/bevrepro
sh /run/bevrepro/docker/bytecode.sh "$control/bin/python" "$control/lib"
