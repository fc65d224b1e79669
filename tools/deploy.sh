#!/bin/sh
# Put a bundle on one device over ssh and verify it there:
#
#     tools/deploy.sh BUNDLE.tar.gz USER@HOST [PORT] [DIR]
#
# The device needs Python 3.9 with venv and an ssh server. It does the work with device/install.sh.
# Exit codes: 0 verified and in use, 1 failed and the version before stays in use, 2 bad usage.
set -eu

fail() { # EXIT_CODE MESSAGE
    echo "deploy: $2" >&2
    exit "$1"
}

remote() { # COMMAND
    ssh -p "$port" -o ControlPath="$control/ssh" "$pi" "$1"
}

bundle=${1:-} pi=${2:-} port=${3:-22} dir=${4:-lenet5-edge}
case $pi in
    '') fail 2 "name a device: make deploy PI=user@host" ;;
    -* | *[!A-Za-z0-9.@_-]*) fail 2 "PI=$pi: not user@host" ;;
esac
case $port in
    '' | *[!0-9]*) fail 2 "PORT=$port: not a number" ;;
esac
case $dir in
    -* | *[!A-Za-z0-9./_-]*) fail 2 "DIR=$dir: use letters, digits and . / _ - only" ;;
esac
[ -f "$bundle" ] || fail 2 "no bundle $bundle; make it with: make export"
installer=$(dirname "$0")/../device/install.sh

control=$(mktemp -d)
trap 'ssh -o ControlPath="$control/ssh" -O exit "$pi" 2>/dev/null || true; rm -rf "$control"' EXIT
trap 'exit 1' HUP INT TERM
lost="the connection to $pi failed or was lost; what was in use there stays, deploy again"

# One connection for all that follows, so that a password is asked once.
ssh -p "$port" -o ControlMaster=yes -o ControlPath="$control/ssh" -o ControlPersist=60 \
    -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 "$pi" true ||
    fail 1 "$lost"
remote "mkdir -p $dir" || fail 1 "cannot make $dir on $pi"
if command -v rsync >/dev/null && remote "command -v rsync" >/dev/null; then
    rsync --checksum --inplace --rsh="ssh -p $port -o ControlPath=$control/ssh" \
        "$bundle" "$pi:$dir/bundle.tar.gz" || fail 1 "$bundle: copying to $pi failed; deploy again"
else
    scp -q -P "$port" -o ControlPath="$control/ssh" "$bundle" "$pi:$dir/bundle.tar.gz" ||
        fail 1 "$bundle: copying to $pi failed; deploy again"
fi
status=0
remote "sh -s $dir/bundle.tar.gz $dir" <"$installer" || status=$?
case $status in
    0 | 1 | 2) exit $status ;;
    *) fail 1 "$lost" ;;
esac
