#!/usr/bin/env bash
# Builds the libFuzzer programs with clang and sanitizers, and runs them one
# after the other over corpus and seeds. Ends with 1 when one found something;
# the input is then kept in the build folder under findings/.
#
# Usage: tests/fuzz/fuzz.sh [--seconds N] [--keep] [TARGET ...]
#   --seconds N  for each target (default 600)
#   --keep       adds what covers more to tests/fuzz/corpus, smallest first
# CARAVAN_FUZZ_BUILD is the build folder (default build/fuzz).
set -euo pipefail
cd "$(dirname "$0")/../.."

build=${CARAVAN_FUZZ_BUILD:-build/fuzz}
seconds=600
keep=no
targets=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --keep) keep=yes ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "unknown argument: $1" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [[ ${#targets[@]} -eq 0 ]]; then
  mapfile -t targets < <(grep -v '^#' tests/fuzz/targets.txt | cut -d' ' -f1)
fi

mkdir -p "$(dirname "$build")"
cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_CXX_COMPILER=clang++ -DCARAVAN_FUZZ=ON -DCARAVAN_SANITIZE=address \
  -DCARAVAN_SERVICES=OFF -DCARAVAN_WERROR=OFF >"$build.log" 2>&1 ||
  { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --target "${targets[@]/%/_fuzzer}"

# Scratch files of targets belong into memory.
[[ -d /dev/shm && -w /dev/shm ]] && export TMPDIR=/dev/shm

# Runs one target; prints its executions, time and what it reached.
fuzz() {
  local target=$1 program=$build/bin/${1}_fuzzer
  local found=$build/corpus/$target findings=$build/findings/$target-
  local kept=tests/fuzz/corpus/$target
  mkdir -p "$found" "$build/findings" "$build/seeds/$target" "$kept"
  "$program" --seeds="$build/seeds/$target" >/dev/null
  # Twice the largest seed, so that no seed is cut.
  local largest
  largest=$(find "$build/seeds/$target" -type f -printf '%s\n' | sort -n |
    tail -n 1)
  local length=$((largest * 2 > 4096 ? largest * 2 : 4096))
  local options=(-timeout=10 -rss_limit_mb=4096 -malloc_limit_mb=2048
    "-max_len=$length" -reload=0 -print_final_stats=1 -verbosity=1
    -artifact_prefix="$findings")
  local words=tests/fuzz/$target.dict
  [[ -f $words ]] && options+=("-dict=$words")
  "$program" "${options[@]}" -max_total_time="$seconds" "$found" "$kept" \
    "$build/seeds/$target" >"$build/$target.log" 2>&1 ||
    { tail -n 40 "$build/$target.log"; return 1; }
  grep -E '^Done|stat::(peak|number)' "$build/$target.log" | tr '\n' ' '
  tail -n 30 "$build/$target.log" | grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' | tail -n 1
  [[ $keep == no ]] && return
  "$program" -merge=1 -set_cover_merge=1 "-max_len=$length" "$kept" \
    "$build/seeds/$target" "$found" >"$build/$target-merge.log" 2>&1
}

result=0
for target in "${targets[@]}"; do
  echo "== $target"
  fuzz "$target" || { echo "$target found something"; result=1; }
done
exit $result
