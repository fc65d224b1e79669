#!/bin/sh
# Install a bundle on this device, verify it here, and only then put it into use:
#
#     sh install.sh BUNDLE.tar.gz [DIR]
#
# DIR (default: ~/lenet5-edge) then holds
#
#     versions/<version>-<SHA-256 of the bundle>/    the bundle's files, .venv and device.json
#     current -> versions/...                        the version in use, switched last
#     allowed_signers                                yours, if only signed bundles may be installed
#
# The version used before stays beside it, older ones are removed. Whatever fails, `current` stays
# as it was and what was half-made is removed, after a crash by the next run. To install what is in
# use already only verifies and times it. Every runtime is installed that has a wheel for this machine
# and its Python, from the bundle's wheels/, else from pip's index; with RUNTIMES=native in the
# environment none is, and the compiled C of native/ is used. SERVICE=1 reads the camera from boot on,
# SERVICE=0 no more.
#
# Exit codes: 0 verified and in use, 1 failed, 2 bad usage or bad bundle.
set -eu

say() { # TEXT, as it is: echo would turn \n and \033 in it into what they stand for
    printf '%s\n' "$1"
}

fail() { # EXIT_CODE MESSAGE
    say "install: $2" >&2
    exit "$1"
}

# Wherever `current` leads to, however it was written: by hand the link gets a slash at its end.
in_use() {
    link=$(realpath -e current 2>/dev/null) || link=nothing
    say "${link#"$dir/"}"
}

# Run a step quietly; when it fails, show the end of what it said.
step() { # WHAT COMMAND...
    what=$1
    shift
    output=$("$@" 2>&1 </dev/null) || failed "$what" "$output"
}

failed() { # WHAT OUTPUT
    free=$(df -Pm . | awk 'NR == 2 { print $4 }') # before what was half-made is removed
    rm -rf versions/.new
    say "$2" | tail -n 5 >&2
    fail 1 "cannot $1, with $free MiB free; in use: $(in_use)"
}

not_verified() { # RESULT
    say "$1" >&2
    fail 1 "the bundle does not verify on this device; in use: $(in_use)"
}

# Where there are allowed_signers (a line each: NAME KEYTYPE KEY), only what one of them signed is
# read any further. `make bundle SIGN=KEYFILE` writes the signature, BUNDLE.sig.
check_signature() { # BUNDLE ALLOWED_SIGNERS
    [ -e "$2" ] || [ -L "$2" ] || return 0
    command -v ssh-keygen >/dev/null || fail 1 "no ssh-keygen; on Debian: apt install openssh-client"
    name=$(ssh-keygen -Y find-principals -f "$2" -s "$1.sig" 2>/dev/null | head -n 1)
    ssh-keygen -Y verify -f "$2" -I "${name%%,*}" -n lenet5-edge -s "$1.sig" <"$1" >/dev/null 2>&1 ||
        fail 2 "$1: no signature in $1.sig by one of $2; sign it with: make bundle SIGN=KEYFILE"
}

# Print the name of the folder in a bundle. With FOLDER, unpack into it if it is not there yet, and
# compare its files with the hashes of the manifest. Only plain files are unpacked, and only those
# that the manifest names. Exit codes: 0, 1 cannot be unpacked, 2 bad bundle, 3 a file differs.
# Python is started with -I here, so that no code of the current folder is run.
read_bundle() { # BUNDLE [FOLDER]
    python3 -I -c '
import hashlib, json, os, re, shutil, sys, tarfile

def refuse(why):
    print(why)
    sys.exit(2)

def read(archive):
    roots, members = set(), {}
    for member in archive:
        root, _, name = member.name.partition("/")
        roots.add(root)
        if member.isdir():
            continue  # those that its files need are made
        plain = member.isreg() and not member.mode & 0o7000 and name.isprintable()
        if not plain or name in members or {"", ".", ".."} & set(name.split("/")):
            refuse(f"refused: {ascii(member.name)} is not a plain file inside the bundle, or twice")
        members[name] = member
    manifest = archive.extractfile(members["manifest.json"]).read()
    hashes = {name: entry["sha256"] for name, entry in json.loads(manifest)["files"].items()}
    hashes["manifest.json"] = hashlib.sha256(manifest).hexdigest()
    for name in members.keys() ^ hashes.keys():
        refuse(f"refused: {ascii(name)} is not both in the bundle and in its manifest")
    (root,) = roots
    return re.fullmatch(r"lenet5-edge-[0-9][0-9A-Za-z.+_-]*", root)[0], members, hashes

try:
    archive = tarfile.open(sys.argv[1], "r:gz")
    root, members, hashes = read(archive)
except Exception:  # gzip, tarfile and json raise a dozen kinds
    refuse("not a bundle of lenet5-edge, or damaged; copy it again")
print(root)
for folder in sys.argv[2:]:
    new = not os.path.isdir(folder)
    try:
        for name, member in members.items():
            path = os.path.join(folder, name)
            if new:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "xb") as file:
                    shutil.copyfileobj(archive.extractfile(member), file)
                os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
                os.utime(path, (member.mtime, member.mtime))
            with open(path, "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != hashes[name]:
                    print(f"differs  {name}: its SHA-256 is not the one in the manifest")
                    sys.exit(3)
    except OSError as error:
        sys.exit(str(error))
' "$@" 2>&1 </dev/null
}

# Every model proves itself on every runtime here, device.json says how fast each is, and the fastest
# is used. It fails unless one answers right.
verify() { # VERSION_FOLDER
    if [ -L "$1/lenet5" ]; then
        "$1/lenet5" --verify "$1/native/golden.bin" 2>&1 </dev/null
    else
        code=0
        said=$("$1/.venv/bin/python" "$1/runner.py" receipt 2>&1 </dev/null) || code=$?
        say "$said"
        [ $code = 0 ] && [ "$(say "$said" | tail -n 1)" = PASS ]
    fi
}

# Each package has the version and a hash of requirements.lock. On 32 bits, numpy and Pillow come from
# the system, and of the rest that is installed what has a wheel for 32 bits: where there is none, or
# no numpy, this fails. With RUNTIMES=native only numpy and Pillow are installed.
install_packages() { # VERSION_FOLDER
    wheels=
    [ ! -d "$1/wheels" ] || wheels="--no-index --find-links $1/wheels"
    # Python's, not the kernel's: pip goes by the kernel, which may have 64 where Python has 32.
    bits=$(python3 -I -c 'import struct; print(8 * struct.calcsize("P"))')
    awk -v bits="$bits" -v native="$RUNTIMES" '/^[^ #]/ {
        no_runtime = /^(numpy|pillow)==/
        if (bits == 32) keep = !native && !no_runtime && !/platform_machine != .armv7l/
        else keep = !native || no_runtime
    } keep' "$1/requirements.lock" >"$1/.venv/packages.lock"
    # Not compiled: verify compiles the few modules that are used, and a Pi is slow at the rest.
    # Wheels only: a Pi would compile numpy for hours.
    # shellcheck disable=SC2086 # three words, none with a space
    if output=$("$1/.venv/bin/python" -I -m pip install --no-compile --only-binary :all: \
        --progress-bar off --disable-pip-version-check $wheels --require-hashes \
        --requirement "$1/.venv/packages.lock" 2>&1 </dev/null); then
        [ "$bits" = 32 ] || return 0
        case $output in
            *"Successfully installed"*) output=$("$1/.venv/bin/python" -I -c "import numpy" 2>&1) ;;
            *) output="none of requirements.lock is for it" && return 1 ;;
        esac
        return # whether there is numpy
    fi
    case $output in
        *"Retrying ("*) ;; # the index did not answer
        *"No matching distribution found"* | *"versions pinned with =="*) return 1 ;;
    esac
    failed "install the packages" "$output"
}

# Where pip has no packages: the runner with the compiled C, if the system has numpy; else the first
# command that runs here and verifies, fastest first, as VERSION_FOLDER/lenet5.
use_native() { # VERSION_FOLDER
    where=
    [ ! -d "$1/wheels" ] || where=" in the bundle's wheels/"
    say "no packages for $(uname -m) and $(python3 -V)$where: $(say "$output" | tail -n 1)"
    say "trying the compiled C"
    if result=$(verify "$1"); then
        return
    fi
    case $result in
        *FAIL) not_verified "$result" ;;
    esac
    commands="aarch64/lenet5 armv7/lenet5 armv6/lenet5"
    [ "$(uname -m)" != x86_64 ] || commands=x86_64/lenet5 # a Pi emulated on a PC would run it too
    for command in $commands; do
        ln -sfn "native/$command" "$1/lenet5"
        code=0
        { result=$(verify "$1"); } 2>/dev/null || code=$? # the shell tells of illegal instructions
        case $code in
            0)
                rm -rf "$1/.venv"
                step "write device.json" write_receipt "$1"
                say "using the command lenet5 (native/$command)"
                return
                ;;
            1) not_verified "$result" ;; # it runs here and answers otherwise: no other is tried
        esac
    done
    failed "install the packages" "$output"
}

# The receipt of a command: there is nothing to choose from, so that it is not timed.
write_receipt() { # VERSION_FOLDER
    board=$(tr -d '\0\n"\\' 2>/dev/null </proc/device-tree/model) || board=$(uname -n)
    python=$(python3 -V)
    choice='"artifact": "native/lenet5_int8.c", "runtime": "native"'
    sha256=$(sha256sum <"$1/native/lenet5_int8.c" | cut -c 1-64)
    cat >"$1/device.json" <<EOF
{"schema_version": 1, "board": "$board", "system": "$(uname -srm)", "python": "${python#Python }",
 "time": "$(date -u +%FT%TZ)", "bundle_sha256": "$(cat "$1/bundle.sha256")", "throttled": null,
 "rows": [{$choice, "runtime_version": null, "sha256": "$sha256",
           "verified": true, "reason": "", "latency_us": null, "invoke_us": null}],
 "choice": {$choice}}
EOF
}

# Build the version in versions/.new, and give it its name when it is verified and on the disk.
build() { # BUNDLE VERSION_FOLDER
    new=versions/.new code=0
    free=$(df -Pk . | awk 'NR == 2 { print $4 }') used=$(du -sk current/ 2>/dev/null | cut -f 1)
    [ "$free" -ge $((2 * ${used:-0})) ] || remove_all_but "$previous" # before, if there is little room
    output=$(read_bundle "$1" "$new") || code=$?
    case $code in
        0) ;;
        2) fail 2 "$1: $output" ;;
        3) not_verified "$output" ;;
        *) failed "unpack the bundle" "$output" ;;
    esac
    say "$digest" | cut -c 1-64 >"$new/bundle.sha256"
    say "making the environment and installing the packages"
    step "make the environment" python3 -I -m venv --system-site-packages "$new/.venv"
    code=0
    install_packages "$new" || code=$?
    say "${RUNTIMES:-all}" >"$new/.venv/runtimes"
    say "verifying and timing every model on every runtime"
    if [ $code != 0 ]; then
        use_native "$new"
    elif ! result=$(verify "$new"); then
        not_verified "$result"
    fi
    say "$result"
    # The scripts of the environment hold its path, which is about to change.
    [ ! -d "$new/.venv" ] || step "finish the environment" find "$new/.venv/bin" \
        "$new/.venv/pyvenv.cfg" -type f -exec sed -i "s|/versions/\.new/|/$2/|g" {} +
    [ "$(sha256sum <"$1")" = "$digest" ] || fail 1 "$1: has changed meanwhile; in use: $(in_use)"
    step "write to the disk" sync -f "$new"
    if [ -d "$2" ]; then # damaged, and perhaps in use: both change places in one step
        step "replace the damaged version" python3 -I -c '
import ctypes, os, sys
libc, (old, new) = ctypes.CDLL(None, use_errno=True), map(os.fsencode, sys.argv[1:])
if libc.renameat2(-100, old, -100, new, 2):  # AT_FDCWD, RENAME_EXCHANGE
    sys.exit(os.strerror(ctypes.get_errno()))' "$new" "$2"
    else
        step "name the version" mv -T "$new" "$2"
    fi
}

# Whether a version was installed with what RUNTIMES asks for; a command has none.
has_runtimes() { # VERSION_FOLDER
    [ -L "$1/lenet5" ] || [ "$(cat "$1/.venv/runtimes" 2>/dev/null)" = "${RUNTIMES:-all}" ]
}

# SERVICE=1: the camera is read from boot on (lenet5-edge.service). SERVICE=0: no more. Without it, a
# service that is there goes on with the new version.
set_service() {
    unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/lenet5-edge.service
    export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
    case $SERVICE in
        1)
            case $dir in
                *[!A-Za-z0-9./_-]*) fail 1 "$dir: a service needs a DIR of letters, digits and . / _ -" ;;
            esac
            [ -x current/.venv/bin/python ] || fail 1 "a service needs numpy: apt install python3-numpy"
            step "write the unit" mkdir -p "${unit%/*}"
            step "write the unit" cp current/lenet5-edge.service "$unit.new"
            step "write the unit" sed -i "s|%h/lenet5-edge/|$dir/|" "$unit.new"
            step "write the unit" mv "$unit.new" "$unit"
            step "start the service" systemctl --user daemon-reload
            step "start the service" systemctl --user enable lenet5-edge.service
            step "start the service" systemctl --user restart lenet5-edge.service
            loginctl enable-linger 2>/dev/null || sudo -n loginctl enable-linger "$(id -un)" 2>/dev/null ||
                say "to start it at boot, not when you log in: sudo loginctl enable-linger $(id -un)"
            say "the service lenet5-edge reads the camera: journalctl --user -u lenet5-edge -f"
            ;;
        0)
            if [ -e "$unit" ]; then
                step "stop the service" systemctl --user disable --now lenet5-edge.service
                rm -f "$unit"
                step "stop the service" systemctl --user daemon-reload
            fi
            say "there is no service lenet5-edge"
            ;;
        *) [ ! -e "$unit" ] || step "restart the service" systemctl --user try-restart lenet5-edge.service ;;
    esac
}

remove_all_but() { # VERSION_FOLDER...
    for version in versions/*; do
        case " $* " in
            *" $version "*) ;;
            *) rm -rf "$version" || true ;; # of another user, as rm says
        esac
    done
}

# A function, so that the whole script is read before anything runs, even from standard input.
main() {
    if [ $# -lt 1 ] || [ $# -gt 2 ]; then
        fail 2 "usage: sh install.sh BUNDLE.tar.gz [DIR]"
    fi
    [ -f "$1" ] || fail 2 "$1: no such file"
    RUNTIMES=${RUNTIMES:-} SERVICE=${SERVICE:-}
    case $RUNTIMES in
        '' | native) ;;
        *) fail 2 "RUNTIMES=$RUNTIMES: there is only native; without it, all are installed" ;;
    esac
    case $SERVICE in
        '' | 0 | 1) ;;
        *) fail 2 "SERVICE=$SERVICE: 1 installs the service, 0 removes it" ;;
    esac
    bundle=$(realpath -- "$1")
    dir=${2-${HOME:+$HOME/lenet5-edge}}
    [ -n "$dir" ] || fail 2 "name a DIR to install to"
    python3 -I -c 'import ctypes, ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
        fail 1 "no Python 3.9 or later with venv; on Debian: apt install python3-venv"
    digest=$(sha256sum <"$bundle")
    check_signature "$bundle" "$dir/allowed_signers"
    root=$(read_bundle "$bundle") || fail 2 "$1: $root"
    folder=versions/${root#lenet5-edge-}-$(say "$digest" | cut -c 1-12)

    umask 022
    dir=$(realpath -m -- "$dir")
    if ! mkdir -p "$dir/versions" 2>/dev/null || ! [ -w "$dir" ] || ! [ -w "$dir/versions" ]; then
        fail 1 "$dir: cannot be written; make it writable or name another DIR"
    fi
    cd "$dir"
    [ -L current ] || [ ! -e current ] || fail 1 "$dir/current: not a link; move it away"
    exec 9<versions
    flock -w 120 9 || fail 1 "$dir: another install has been running here for two minutes"
    previous=$(in_use)
    trap 'rm -rf versions/.new .current.new' EXIT
    # PIPE: when the connection is lost, the next line of output ends this before the switch.
    trap 'exit 1' HUP PIPE
    trap 'fail 1 "interrupted; in use: $(in_use)"' INT TERM
    rm -rf versions/.new .current.new

    state="is in use now"
    if [ -d "$folder" ] && read_bundle "$bundle" "$folder" >/dev/null && has_runtimes "$folder" &&
        result=$(verify "$folder"); then
        say "$result"
        [ "$previous" != "$folder" ] || state="was in use already"
    else
        build "$bundle" "$folder"
    fi
    if [ "$previous" != "$folder" ]; then
        step "switch" ln -s "$folder" .current.new
        step "switch" mv -T .current.new current # in one step
        remove_all_but "$folder" "$previous"
        find . -maxdepth 1 -name 'bundle*.tar.gz*' -mtime +0 -delete || true # sent for earlier ones
    fi
    step "write to the disk" sync -f .
    say "${folder#versions/} $state: $dir/current"
    [ -z "${HOME:-}" ] || set_service
}

main "$@"
