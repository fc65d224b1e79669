#!/bin/sh
# Put a bundle on every device of an Ansible inventory:
#
#     tools/fleet.sh BUNDLE.tar.gz INVENTORY [OPTION OF ansible-playbook]...
#
# RUNTIMES, SERVICE and ARTIFACTS are as for deploy.sh; at the end all receipts are one table.
# Exit codes: 0 verified and in use on all, 1 not on all (there the version before stays),
# 2 bad usage.
here=$(dirname "$0")
tool=deploy
. "$here/shared.sh"

bundle=$1 inventory=$2
shift 2
check_bundle "$bundle"
[ -e "$inventory" ] || fail 2 "no inventory $inventory; write one device a line: pi@host"

PATH=$here/../.venv-fleet/bin:$PATH
export ANSIBLE_CALLBACK_RESULT_FORMAT=yaml
export ANSIBLE_PYTHON_INTERPRETER=python3
export ANSIBLE_PIPELINING=true # fewer round trips
export ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true
# Ansible's own options, and: a device that vanishes is noticed after half a minute.
export ANSIBLE_SSH_ARGS="-C -o ControlMaster=auto -o ControlPersist=60s \
-o ServerAliveInterval=10 -o ServerAliveCountMax=3"
hosts=$(ansible all --inventory "$inventory" --list-hosts) ||
    fail 2 "$inventory: not an inventory, for the reason above"
case $hosts in
    *"hosts (0)"*) fail 2 "$inventory: names no device; write one a line: pi@host" ;;
esac
# Under a plain name: Ansible would take quotes, braces and $ in a path for its own.
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
ln -s "$(realpath "$bundle")" "$links/bundle.tar.gz"
[ ! -f "$bundle.sig" ] || ln -s "$(realpath "$bundle.sig")" "$links/bundle.tar.gz.sig"
set -- --extra-vars "lenet5_edge_bundle=$links/bundle.tar.gz" "$@"
if [ -n "${ARTIFACTS:-}" ]; then
    mkdir -p "$ARTIFACTS/devices"
    ln -s "$(realpath "$ARTIFACTS/devices")" "$links/devices"
    set -- --extra-vars "lenet5_edge_receipts=$links/devices" "$@"
fi
status=0
ansible-playbook --inventory "$inventory" "$@" \
    "$here/../device/ansible/deploy.yml" || status=$?
# All receipts that have come here, as one table.
[ -z "${ARTIFACTS:-}" ] || python3 -I -c '
import json, pathlib, sys
lines = [("device", "board", "model", "runtime", "us an image", "throttled", "time")]
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    try:
        receipt = json.loads(path.read_text())
        choice = receipt["choice"]
        row = next(r for r in receipt["rows"] if {**r, **choice} == r)
        us, throttled = row["latency_us"], receipt["throttled"]
        what = (choice["artifact"], choice["runtime"], "" if us is None else f"{us:.1f}")
        lines.append((path.stem, receipt["board"], *what, throttled or "", receipt["time"]))
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        lines.append((path.stem, "no receipt, or damaged", "", "", "", "", ""))
widths = [max(len(ascii(text)) for text in column) - 2 for column in zip(*lines)]
for line in lines:
    print("  ".join(ascii(t)[1:-1].ljust(w) for t, w in zip(line, widths)).rstrip())
' "$ARTIFACTS/devices"
case $status in
    0) ;;
    2 | 4) fail 1 "not every device has the bundle; the recap says which, those keep what they had" ;;
    *) fail 2 "ansible-playbook stopped, for the reason above (exit code $status)" ;;
esac
