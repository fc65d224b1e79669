#!/bin/sh
# Time the models of the installed bundle on a device, and bring the figures here:
#
#     tools/bench-pi.sh USER@HOST PORT DIR RESULT.json [--full]
#
# Ctrl-C ends the benchmark there: what was timed until then goes to RESULT-interrupted.json.
# Exit codes: 0 done, 1 failed and RESULT.json is what it was, 2 bad usage, 130 interrupted.
tool=bench-pi
. "$(dirname "$0")/shared.sh"

[ $# -ge 4 ] || fail 2 "usage: bench-pi.sh USER@HOST PORT DIR RESULT.json [--full]"
result=$4 full=${5:-}
case $full in
    '' | --full) ;;
    *) fail 2 "FLAGS=$full: there is only --full" ;;
esac
connect "$1" "$2" "$3"
python=$dir/current/.venv/bin/python
remote "test -x $python" || fail 1 "no bundle installed in $dir: make deploy PI=$pi"
mkdir -p "$(dirname "$result")"
partial=$(mktemp "$result.XXXXXX")
chmod 644 "$partial" # mktemp makes it for the owner alone

# The benchmark there is interrupted when its input ends, as it does when the connection is lost.
# Ctrl-C here ends that input. ssh is in a session of its own, hears no Ctrl-C, and brings the rest.
mkfifo "$control/input"
setsid ssh -p "$port" -o ControlPath="$control/ssh" "$pi" "exec 3<&0
    { cat <&3; kill -INT \$\$; } >/dev/null 2>&1 &
    exec $python $dir/current/runner.py bench --json $full </dev/null 3<&-" <"$control/input" >"$partial" &
connection=$! code=0
exec 3>"$control/input"
trap 'exec 3>&-; trap "exit 130" INT; echo "bench-pi: interrupted; the figures until now are coming" >&2' INT
wait $connection || code=$?
if kill -0 $connection 2>/dev/null; then # Ctrl-C ended the wait, not the benchmark
    code=0
    wait $connection || code=$?
fi

if ! python3 -m json.tool "$partial" >/dev/null 2>&1; then
    [ "$code" != 130 ] || fail 130 "$pi: interrupted before anything was timed"
    fail 1 "$pi: the benchmark did not finish there; $result is what it was"
fi
case $code in
    0 | 1) mv "$partial" "$result" ;;
    130)
        mv "$partial" "${result%.json}-interrupted.json"
        fail 130 "$pi: interrupted; the figures until then are in ${result%.json}-interrupted.json"
        ;;
    *) fail 1 "$pi: the benchmark did not finish there; $result is what it was" ;;
esac
# A throttled board, for one: the figures are there, and say why they are not valid.
[ "$code" = 0 ] || fail 1 "$pi: no valid row; why is shown by: python -m pipeline bench --show $result"
