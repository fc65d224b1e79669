#!/bin/sh
# Put a bundle, and its signature if there is one, on a device over ssh and verify it there:
#
#     tools/deploy.sh BUNDLE.tar.gz USER@HOST [PORT] [DIR]
#
# RUNTIMES=native and SERVICE=1 or 0 are handed to install.sh. With ARTIFACTS set, as make does, the
# device's device.json comes to ARTIFACTS/devices/HOST.json.
# The device needs Python 3.9 with venv and an ssh server. It does the work with device/install.sh.
# Exit codes: 0 verified and in use, 1 failed and the version before stays in use, 2 bad usage,
# 130 interrupted.
here=$(dirname "$0")
tool=deploy
. "$here/shared.sh"

# What the device has already is not sent. What arrives has another name until its hash is right:
# a lost connection looks like the end of the file.
send() { # FILE NAME
    remote "mkdir -p $dir && cd $dir || exit
        is_right() { echo '$(sha256sum <"$1" | cut -c 1-64)'\"  \$1\" | sha256sum -c >/dev/null 2>&1; }
        is_right $2 || { cat >$2.\$\$ && is_right $2.\$\$ && mv $2.\$\$ $2; } || { rm -f $2.\$\$; exit 1; }" \
        <"$1" || fail 1 "$1: copying to $pi failed; deploy again"
}

bundle=${1:-}
check_bundle "$bundle"
case ${RUNTIMES:-}${SERVICE:-} in # they become part of a command there
    *[!a-z01]*) fail 2 "RUNTIMES=${RUNTIMES:-} SERVICE=${SERVICE:-}: there are RUNTIMES=native, SERVICE=1 and 0" ;;
esac
connect "${2:-}" "${3:-22}" "${4:-lenet5-edge}"
# Named by its hash: two deployments at once do not meet in one file.
digest=$(sha256sum <"$bundle" | cut -c 1-12)
name=bundle-$digest.tar.gz
[ ! -f "$bundle.sig" ] || send "$bundle.sig" "$name.sig"
send "$bundle" "$name"

lost="the connection to $pi was lost; what was in use there stays, deploy again"
status=0
remote "RUNTIMES=${RUNTIMES:-} SERVICE=${SERVICE:-} sh -s $dir/$name $dir" <"$here/../device/install.sh" || status=$?
case $status in
    0) ;;
    1 | 2) exit $status ;;
    *) fail 1 "$lost" ;;
esac
in_use=$(remote "cd $dir/current && pwd -P") || fail 1 "$lost"
[ "${in_use##*-}" = "$digest" ] || fail 1 "$pi: another deployment has put ${in_use##*/} into use"
[ -n "${ARTIFACTS:-}" ] || exit 0
receipt=$ARTIFACTS/devices/${pi#*@}.json
mkdir -p "$ARTIFACTS/devices"
partial=$(mktemp "$receipt.XXXXXX")
chmod 644 "$partial" # mktemp makes it for the owner alone
if remote "cat $dir/current/device.json" >"$partial" && python3 -I -m json.tool "$partial" >/dev/null 2>&1; then
    mv "$partial" "$receipt"
    echo "its device.json: $receipt"
else
    fail 1 "$pi: the bundle is in use there, but its device.json did not come; deploy again"
fi
