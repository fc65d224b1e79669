#!/bin/sh
# Fuzz the parsers of the lenet5 command: fuzz.sh SECONDS
set -eu
here=$(dirname "$0") native=$(dirname "$0")/../../../device/native
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
clang -g -O1 -fsanitize=fuzzer,address,undefined,integer,implicit-conversion \
    -fno-sanitize-recover=all -I"$native" "$here/fuzz_image_file.c" "$native/image_file.c" \
    -o "$folder/fuzz"
# What crashes it stays, for the next reader.
"$folder/fuzz" -max_len=4096 -max_total_time="$1" -print_final_stats=1 -verbosity=0 \
    -artifact_prefix=./fuzz-
