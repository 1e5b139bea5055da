#!/bin/sh
# Last step of every image, as the user who will run it: a build that ends without a working torch is no build.
set -eu
bevrepro --version
bevrepro env run --prefix /opt/bevrepro/env -- python -c 'import torch; print("torch", torch.__version__)'
