#!/bin/sh
# Bytecode that does not depend on the day: compared with its source by hash, one process, in the order of names.
#   sh bytecode.sh PYTHON FOLDER
set -eu
# Packages carry files that are no Python of this version; those have no bytecode, and nothing else ends with 1.
PYTHONHASHSEED=0 "$1" -m compileall -qq --invalidation-mode checked-hash "$2" || [ $? -eq 1 ]
