#!/bin/sh
# Sign a bundle with a key of OpenSSH, for devices that have a file allowed_signers:
#
#     tools/sign.sh BUNDLE.tar.gz KEYFILE      writes BUNDLE.tar.gz.sig
#
# Exit codes: 0 done, 1 failed, 2 bad usage.
tool=sign
. "$(dirname "$0")/shared.sh"

bundle=$1 key=$2
case $key in
    "~/"*) key=$HOME/${key#"~/"} ;; # bash expands SIGN=~/..., other shells do not
esac
[ -f "$key" ] || fail 2 "SIGN=$key: no such file; name a key, such as ~/.ssh/id_ed25519"
trap 'rm -f "$bundle.sig.new"' EXIT
ssh-keygen -Y sign -n lenet5-edge -f "$key" <"$bundle" >"$bundle.sig.new" ||
    fail 1 "$key cannot sign, for the reason above"
mv "$bundle.sig.new" "$bundle.sig"
