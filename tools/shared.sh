# Sourced by deploy.sh, fleet.sh, bench-pi.sh and sign.sh, which set `tool`, their name in errors.
set -eu

fail() { # EXIT_CODE MESSAGE
    printf '%s: %s\n' "$tool" "$2" >&2 # echo would turn \n in a name into a new line
    exit "$1"
}

# With ARTIFACTS set, as make does, only a bundle of what lies there and passed parity goes out.
check_bundle() { # BUNDLE
    [ -f "$1" ] || fail 2 "no bundle $1; make it with: make export"
    [ -z "${ARTIFACTS:-}" ] || python3 -I -c '
import hashlib, json, pathlib, sys, tarfile
folder = pathlib.Path(sys.argv[2])
try:
    parity = json.loads((folder / "parity.json").read_text())
    passed = {row["sha256"] for row in parity["rows"] if row["status"] == "pass"}
    with tarfile.open(sys.argv[1]) as archive:
        (name,) = (n for n in archive.getnames() if n.partition("/")[2] == "manifest.json")
        manifest = json.load(archive.extractfile(name))
    packed = {name: manifest["files"][name]["sha256"] for name in manifest["models"]}
    present = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in packed}
    belongs = parity["status"] == "pass" and packed == present and passed >= set(packed.values())
except Exception:  # whatever is missing or damaged
    belongs = False
sys.exit(not belongs)' "$1" "$ARTIFACTS" ||
        fail 1 "$1: not made from what is in $ARTIFACTS now, or that failed parity; run: make export"
}

# Check where to go, and open one connection for all that follows: a password is asked once.
connect() { # USER@HOST PORT DIR
    pi=$1 port=$2 dir=$3
    case $pi in
        '') fail 2 "name a device: make $tool PI=user@host" ;;
        -* | @* | *@ | *@*@* | *[!A-Za-z0-9.@_-]*) fail 2 "PI=$pi: not user@host" ;;
    esac
    case $port in
        '' | *[!0-9]*) fail 2 "PORT=$port: not a number" ;;
        0* | ??????*) fail 2 "PORT=$port: not a port, 1 to 65535" ;;
    esac
    [ "$port" -le 65535 ] || fail 2 "PORT=$port: not a port, 1 to 65535"
    case $dir in # it becomes part of commands there
        '' | -* | *[!A-Za-z0-9./_-]*) fail 2 "DIR=$dir: use letters, digits and . / _ - only" ;;
    esac
    partial=
    control=$(mktemp -d)
    trap 'ssh -o ControlPath="$control/ssh" -O exit "$pi" 2>/dev/null || true; rm -rf "$control" "$partial"' EXIT
    trap 'exit 1' HUP TERM
    trap 'exit 130' INT
    ssh -p "$port" -o ControlMaster=yes -o ControlPath="$control/ssh" -o ControlPersist=60 \
        -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 "$pi" true ||
        fail 1 "$pi cannot be reached; nothing was changed"
}

remote() { # COMMAND
    ssh -p "$port" -o ControlPath="$control/ssh" "$pi" "$1"
}
