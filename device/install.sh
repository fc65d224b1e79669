#!/bin/sh
# Install a bundle on this device, verify it here, and only then put it into use:
#
#     sh install.sh BUNDLE.tar.gz [DIR]
#
# DIR (default: ~/lenet5-edge) then holds
#
#     versions/<version>-<SHA-256 of the bundle>/    the bundle's files and .venv
#     current -> versions/...                        the version in use, switched last
#
# The version used before stays beside it, older ones are removed. Whatever fails, `current` stays
# as it was and what was half-made is removed, after a crash by the next run. To install what is in
# use already only verifies it. Packages come from the bundle's wheels/, else from pip's index; where
# there are none for this machine and its Python, the compiled C of native/ is used, and said.
#
# Exit codes: 0 verified and in use, 1 failed, 2 bad usage or bad bundle.
set -eu

fail() { # EXIT_CODE MESSAGE
    echo "install: $2" >&2
    exit "$1"
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
    echo "$2" | tail -n 5 >&2
    fail 1 "cannot $1, with $free MiB free; in use: $previous"
}

not_verified() { # RESULT
    echo "$1" >&2
    fail 1 "the bundle does not verify on this device; in use: $previous"
}

verify() { # VERSION_FOLDER
    if [ -L "$1/lenet5" ]; then
        "$1/lenet5" --verify "$1/native/golden.bin" 2>&1 </dev/null
    else
        "$1/.venv/bin/python" "$1/runner.py" verify 2>&1 </dev/null
    fi
}

# Where pip has no runtime: the runner with the compiled C, if the system has numpy; else the first
# command that runs here and verifies, fastest first, as VERSION_FOLDER/lenet5.
use_native() { # VERSION_FOLDER
    echo "no packages for this machine and its Python: $(echo "$output" | tail -n 1)"
    if result=$(verify "$1"); then
        echo "using the compiled C of native/ in runner.py"
        return
    fi
    case $result in
        *FAIL) not_verified "$result" ;;
    esac
    for command in x86_64/lenet5 aarch64/lenet5 armv7/lenet5 armv6/lenet5; do
        ln -sfn "native/$command" "$1/lenet5"
        code=0
        { result=$(verify "$1"); } 2>/dev/null || code=$? # the shell tells of illegal instructions
        case $code in
            0)
                rm -rf "$1/.venv"
                echo "using the command lenet5 (native/$command)"
                return
                ;;
            1) not_verified "$result" ;; # it runs here and answers otherwise: no other is tried
        esac
    done
    failed "install the packages" "$output"
}

# Build the version in versions/.new, and give it its name only when it is verified.
build() { # BUNDLE VERSION_FOLDER
    new=versions/.new
    mkdir "$new"
    step "unpack the bundle" tar -xzf "$1" -C "$new" --strip-components=1 --no-same-owner
    echo "making the environment and installing the packages"
    step "make the environment" python3 -m venv --system-site-packages "$new/.venv"
    if [ -d "$new/wheels" ]; then
        packages="--no-index --find-links $new/wheels"
    fi
    # Not compiled: verify compiles the few modules that are used, and a Pi is slow at the rest.
    # Wheels only: a Pi would compile numpy for hours.
    # shellcheck disable=SC2086 # three words, none with a space
    if ! output=$("$new/.venv/bin/python" -m pip install ${packages:-} --quiet --no-compile \
        --disable-pip-version-check --only-binary :all: --requirement "$new/requirements.txt" \
        2>&1 </dev/null); then
        case $output in
            *"Retrying ("*) failed "install the packages" "$output" ;; # the index did not answer
            *"No matching distribution found"*) use_native "$new" ;;
            *) failed "install the packages" "$output" ;;
        esac
    elif ! result=$(verify "$new"); then
        not_verified "$result"
    fi
    echo "$result"
    # The scripts of the environment hold its path, which is about to change.
    if [ -d "$new/.venv" ]; then
        step "finish the environment" find "$new/.venv/bin" "$new/.venv/pyvenv.cfg" \
            -type f -exec sed -i "s|/versions/\.new/|/$2/|g" {} +
    fi
    rm -rf "$2"
    step "name the version" mv -T "$new" "$2"
}

# Switch in one step, then remove all but this version and the one before.
switch() { # VERSION_FOLDER
    step "switch" ln -s "$1" .current.new
    step "switch" mv -T .current.new current
    for version in versions/*; do
        case $version in
            "$1" | "$previous") ;;
            *) rm -rf "$version" ;;
        esac
    done
}

# A function, so that the whole script is read before anything runs, even from standard input.
main() {
    if [ $# -lt 1 ] || [ $# -gt 2 ]; then
        fail 2 "usage: sh install.sh BUNDLE.tar.gz [DIR]"
    fi
    [ -f "$1" ] || fail 2 "$1: no such file"
    bundle=$(realpath -- "$1")
    dir=${2-${HOME:+$HOME/lenet5-edge}}
    case $dir in
        '') fail 2 "name a DIR to install to" ;;
        -*) dir=./$dir ;;
    esac
    names=$(tar -tzf "$bundle" 2>/dev/null) || names= # cut off, for one
    root=${names%%/*}
    case $root in
        lenet5-edge-[0-9]*) ;;
        *) fail 2 "$1: not a bundle of lenet5-edge, or damaged; copy it again" ;;
    esac
    folder=versions/${root#lenet5-edge-}-$(sha256sum "$bundle" | cut -c 1-12)
    python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
        fail 1 "no Python 3.9 or later with venv; on Debian: apt install python3-venv"

    if ! mkdir -p "$dir/versions" 2>/dev/null || ! [ -w "$dir" ] || ! [ -w "$dir/versions" ]; then
        fail 1 "$dir: cannot be written; make it writable or name another DIR"
    fi
    cd "$dir"
    [ -L current ] || [ ! -e current ] || fail 1 "$dir/current: not a link; move it away"
    exec 9<versions
    flock -w 120 9 || fail 1 "$dir: another install has been running here for two minutes"
    previous=$(readlink current || echo nothing)
    trap 'rm -rf versions/.new .current.new' EXIT
    # PIPE: when the connection is lost, the next line of output ends this before the switch.
    trap 'exit 1' HUP PIPE
    trap 'fail 1 "interrupted; in use: $previous"' INT TERM
    rm -rf versions/.new .current.new

    state="is in use now"
    if [ -d "$folder" ] && result=$(verify "$folder"); then
        echo "$result"
        [ "$previous" != "$folder" ] || state="was in use already"
    else
        build "$bundle" "$folder"
    fi
    [ "$previous" = "$folder" ] || switch "$folder"
    echo "${folder#versions/} $state: $PWD/current"
}

main "$@"
