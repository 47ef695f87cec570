#!/usr/bin/env bash
# Line coverage of the fuzzed sources (targets.txt) by the kept corpus and the
# seeds, from clang's source-based counters. Prints a line for each source and
# the total; ends with 1 where the total is below the bound.
#
# Usage: tests/fuzz/coverage.sh [--least PERCENT] [--also FOLDER] [TARGET ...]
#   --least PERCENT  the bound (default 85)
#   --also FOLDER    further corpora, FOLDER/TARGET
# CARAVAN_COVERAGE_BUILD is the build folder (default build/fuzz-coverage).
set -euo pipefail
cd "$(dirname "$0")/../.."

build=${CARAVAN_COVERAGE_BUILD:-build/fuzz-coverage}
least=85
also=
targets=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --least) least=$2; shift ;;
    --also) also=$2; shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "unknown argument: $1" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [[ ${#targets[@]} -eq 0 ]]; then
  mapfile -t targets < <(grep -v '^#' tests/fuzz/targets.txt | cut -d' ' -f1)
fi

mkdir -p "$build"
cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_COMPILER=clang++ -DCARAVAN_FUZZ=ON -DCARAVAN_SERVICES=OFF \
  -DCARAVAN_WERROR=OFF \
  -DCMAKE_CXX_FLAGS="-O1 -fprofile-instr-generate -fcoverage-mapping" \
  >"$build/configure.log" 2>&1 || { cat "$build/configure.log" >&2; exit 1; }
cmake --build "$build" --target "${targets[@]/%/_fuzzer}" >&2

programs=() sources=()
rm -rf "$build/profiles" && mkdir -p "$build/profiles"
for target in "${targets[@]}"; do
  program=$build/bin/${target}_fuzzer
  seeds=$build/seeds/$target
  mkdir -p "$seeds"
  "$program" --seeds="$seeds" >/dev/null
  folders=("$seeds")
  for folder in "tests/fuzz/corpus/$target" "${also:+$also/$target}"; do
    [[ -n $folder && -d $folder ]] && folders+=("$folder")
  done
  LLVM_PROFILE_FILE=$build/profiles/$target.profraw \
    "$program" -runs=0 -timeout=60 "${folders[@]}" >"$build/$target.log" 2>&1
  programs+=(-object "$program")
  # Patterns of targets.txt are meant to be expanded.
  # shellcheck disable=SC2206
  sources+=($(grep -E "^$target " tests/fuzz/targets.txt | cut -d' ' -f2-))
done
llvm-profdata merge -sparse "$build"/profiles/*.profraw -o "$build/profile"
# The first program is llvm-cov's own argument, the others are options. Files
# are picked here: the names that llvm-cov filters by depend on the build.
llvm-cov export -summary-only -instr-profile "$build/profile" \
  "${programs[@]:1}" 2>/dev/null |
  python3 -c '
import json
import os
import sys
least, sources = float(sys.argv[1]), set(sys.argv[2:])
count = covered = 0
for file in json.load(sys.stdin)["data"][0]["files"]:
    name = os.path.relpath(os.path.realpath(file["filename"]))
    if name not in sources:
        continue
    lines = file["summary"]["lines"]
    count += lines["count"]
    covered += lines["covered"]
    print("%6.2f %%  %5d lines  %s" % (lines["percent"], lines["count"], name))
percent = 100.0 * covered / max(count, 1)
print("%6.2f %%  %5d lines  in all (least: %g %%)" % (percent, count, least))
sys.exit(percent < least)' "$least" "${sources[@]}"
