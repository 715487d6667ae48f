#!/usr/bin/env bash
# The tests of the kernels for CPUs, with the kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tools/sanitize.sh [ARGUMENT OF PYTEST]...    default: all of them, some minutes
#
# Needs GCC and the environment of `make dev` (PYTHON chooses its interpreter). The first report ends the run with its
# stack trace and a non-zero exit code. The library lies in a cache of its own; the usual one is not touched. PyTorch is
# not instrumented, but its memory comes from the sanitizer's allocator, so that what lies beyond a tensor is known.
#
# ThreadSanitizer is no option here: GCC's OpenMP runtime is not instrumented, and without its barriers all is a race.
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=$(command -v "${CXX:-g++}") || { echo "error: no compiler ${CXX:-g++}" >&2; exit 1; }
preload=
for runtime in asan ubsan; do
    library=$("$compiler" -print-file-name="lib$runtime.so")
    [ -f "$library" ] || { echo "error: $compiler has no lib$runtime.so; GCC is needed" >&2; exit 1; }
    preload="$preload $library"
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/c++" << EOF
#!/bin/sh
unset LD_PRELOAD
exec "$compiler" "\$@" -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
EOF
chmod +x "$folder/c++"

export CXX="$folder/c++" SACT_DET_CACHE="$folder/cache"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1  # Python leaks by intent
sanitized() { LD_PRELOAD=$preload "${PYTHON:-python}" "$@"; }

sanitized -c '
from sact_det.execution.cpu import library
reason = library.why_unavailable()
raise SystemExit(reason and f"error: {reason}")'  # or else every test would be skipped

[ $# -gt 0 ] || set -- tests/execution/test_{inputs,release}.py tests/execution/cpu/test_{roi_align,rows,rows_16_bits,rows_halting,rows_in_one_call,teams,training_run}.py
sanitized -m pytest -p no:cacheprovider -s "$@"
