#!/bin/sh
# Make a virtual environment from a lock file: tools/venv.sh FOLDER LOCKFILE
# An interrupted run is picked up by the next one; FOLDER/.installed is written last.
set -eu
folder=$1 lock=$2
exec 9<"$lock"
flock 9 # two at once would write to one folder

# 3.11 comes first because tflite-runtime has no wheel for a later one.
suitable='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$python" -c "$suitable" >/dev/null 2>&1; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "$folder: no Python 3.11, 3.12 or 3.13 with venv; on Debian: apt install python3 python3-venv," \
        "or name one: make PYTHON=/path/to/python3.11" >&2
    exit 2
fi

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    "$found" -m venv --clear "$folder"
fi
echo "$folder: installing $lock for $("$folder/bin/python" --version)"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement "$lock"
touch "$folder/.installed"
