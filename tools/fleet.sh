#!/bin/sh
# Put a bundle on every device of an Ansible inventory:
#
#     tools/fleet.sh BUNDLE.tar.gz INVENTORY [OPTION OF ansible-playbook]...
#
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
status=0
ansible-playbook --inventory "$inventory" --extra-vars "lenet5_edge_bundle=$links/bundle.tar.gz" \
    "$@" "$here/../device/ansible/deploy.yml" || status=$?
case $status in
    0) ;;
    2 | 4) fail 1 "not every device has the bundle; the recap says which, those keep what they had" ;;
    *) fail 2 "ansible-playbook stopped, for the reason above (exit code $status)" ;;
esac
