#!/bin/sh
# Resolve pyproject.toml and device/requirements.txt into lock files with exact versions and
# hashes, for every Python and platform that they allow. Run by `make lock`.
set -eu
uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
.venv/bin/python -m venv "$uv"
"$uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
set -- --universal --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --quiet
"$uv/bin/uv" pip compile "$@" --python-version 3.11 pyproject.toml --extra dev \
    --output-file requirements.lock
"$uv/bin/uv" pip compile "$@" --python-version 3.9 device/requirements.txt \
    --output-file device/requirements.lock
# An extra on its own, without the project's dependencies.
.venv/bin/python - >"$uv/fleet.txt" <<EOF
import tomllib
with open("pyproject.toml", "rb") as stream:
    print(*tomllib.load(stream)["project"]["optional-dependencies"]["fleet"], sep="\\n")
EOF
"$uv/bin/uv" pip compile "$@" --python-version 3.11 "$uv/fleet.txt" \
    --output-file requirements-fleet.lock
