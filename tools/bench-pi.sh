#!/bin/sh
# Time the models of the installed bundle on a device, and bring the figures here:
#
#     tools/bench-pi.sh USER@HOST PORT DIR RESULT.json [--full]
#
# Exit codes: 0 done, 1 failed and RESULT.json is what it was, 2 bad usage, 130 interrupted there:
# the figures until then are in RESULT-interrupted.json.
set -eu

fail() { # EXIT_CODE MESSAGE
    echo "bench-pi: $2" >&2
    exit "$1"
}

[ $# -ge 4 ] || fail 2 "usage: bench-pi.sh USER@HOST PORT DIR RESULT.json [--full]"
pi=$1 port=$2 dir=$3 result=$4 full=${5:-}
case $pi in
    '') fail 2 "name a device: make bench-pi PI=user@host" ;;
    -* | @* | *@ | *@*@* | *[!A-Za-z0-9.@_-]*) fail 2 "PI=$pi: not user@host" ;;
esac
case $port in
    '' | *[!0-9]*) fail 2 "PORT=$port: not a number" ;;
    0* | ??????*) fail 2 "PORT=$port: not a port, 1 to 65535" ;;
esac
[ "$port" -le 65535 ] || fail 2 "PORT=$port: not a port, 1 to 65535"
case $dir in
    '' | -* | *[!A-Za-z0-9./_-]*) fail 2 "DIR=$dir: use letters, digits and . / _ - only" ;;
esac
case $full in
    '' | --full) ;;
    *) fail 2 "FLAGS=$full: there is only --full" ;;
esac

mkdir -p "$(dirname "$result")"
partial=$(mktemp "$result.XXXXXX")
trap 'rm -f "$partial"' EXIT
trap 'exit 1' HUP INT TERM
code=0
ssh -p "$port" -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 "$pi" \
    "test -x $dir/current/.venv/bin/python || { echo 'no bundle installed in $dir: make deploy PI=$pi' >&2; exit 1; }
     $dir/current/.venv/bin/python $dir/current/runner.py bench --json $full" >"$partial" || code=$?
if [ "$code" = 130 ] && python3 -m json.tool "$partial" >/dev/null 2>&1; then
    kept=${result%.json}-interrupted.json
    chmod 644 "$partial" # mktemp makes it for the owner alone
    mv "$partial" "$kept"
    fail 130 "$pi: interrupted there; the figures until then are in $kept"
fi
[ "$code" = 0 ] || fail 1 "$pi: the benchmark did not finish there; $result is what it was"
chmod 644 "$partial"
mv "$partial" "$result"
