#!/bin/sh
# Time the models of the installed bundle on a device, and bring the figures here:
#
#     tools/bench-pi.sh USER@HOST PORT DIR RESULT.json [--full]
#
# Ctrl-C here is passed on to there: what was timed until then goes to RESULT-interrupted.json.
# Exit codes: 0 done, 1 failed and RESULT.json is what it was, 2 bad usage, 130 interrupted.
set -eu

fail() { # EXIT_CODE MESSAGE
    echo "bench-pi: $2" >&2
    exit "$1"
}

remote() { # COMMAND
    ssh -p "$port" -o ControlPath="$control/ssh" "$pi" "$1"
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
control=$(mktemp -d)
trap 'ssh -o ControlPath="$control/ssh" -O exit "$pi" 2>/dev/null || true; rm -rf "$control" "$partial"' EXIT
trap 'exit 1' HUP TERM
trap 'exit 130' INT

# One connection for all that follows, so that a password is asked once. Ctrl-C leaves it open.
(trap '' INT && exec ssh -p "$port" -o ControlMaster=yes -o ControlPath="$control/ssh" -o ControlPersist=60 \
    -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 "$pi" true) ||
    fail 1 "$pi cannot be reached; $result is what it was"
python=$dir/current/.venv/bin/python
remote "test -x $python" || fail 1 "no bundle installed in $dir: make deploy PI=$pi"

# Python there takes the place of the shell whose number is written. This script hears Ctrl-C and
# asks Python there to end; the connection, in a session of its own, does not hear it.
interrupted=
interrupt() {
    [ -z "$interrupted" ] || exit 130 # pressed again
    interrupted=1
    echo "bench-pi: interrupted; the figures until now are coming" >&2
    remote "kill -INT \$(cat $dir/bench.pid)" || true
}
trap interrupt INT
setsid ssh -p "$port" -o ControlPath="$control/ssh" "$pi" \
    "echo \$\$ >$dir/bench.pid; exec $python $dir/current/runner.py bench --json $full" \
    >"$partial" </dev/null &
connection=$! code=0
wait $connection || code=$?
if kill -0 $connection 2>/dev/null; then # Ctrl-C ended the wait, not the benchmark
    code=0
    wait $connection || code=$?
fi
remote "rm -f $dir/bench.pid" || true

if [ "$code" = 130 ] && python3 -m json.tool "$partial" >/dev/null 2>&1; then
    kept=${result%.json}-interrupted.json
    chmod 644 "$partial" # mktemp makes it for the owner alone
    mv "$partial" "$kept"
    fail 130 "$pi: interrupted; the figures until then are in $kept"
fi
if [ "$code" -gt 1 ] || ! python3 -m json.tool "$partial" >/dev/null 2>&1; then
    fail 1 "$pi: the benchmark did not finish there; $result is what it was"
fi
chmod 644 "$partial"
mv "$partial" "$result"
# A throttled board, for one: the figures are there, and say why they are not valid.
[ "$code" = 0 ] || fail 1 "$pi: no valid row; why is shown by: python -m pipeline bench --show $result"
