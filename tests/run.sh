#!/usr/bin/env bash
# Sets up, builds and tests Caravan. The last lines are the closing lines of
# the runners and the totals; the exit code is 0 when nothing failed.
#
# Usage: tests/run.sh [--long]
#   --long  also what takes too long for every change (label and marker long)
set -euo pipefail
cd "$(dirname "$0")/.."

long=no
for argument in "$@"; do
  case $argument in
    --long) long=yes ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown argument: $argument" >&2; exit 2 ;;
  esac
done

set_up() {
  deploy/install_packages.sh build test
  local stamp=build/venv/requirements.stamp
  if ! cmp -s tests/requirements.txt "$stamp"; then
    python3 -m venv build/venv
    build/venv/bin/pip install -q --disable-pip-version-check \
      -r tests/requirements.txt
    cp tests/requirements.txt "$stamp"
  fi
}

build() {
  cmake --preset dev
  cmake --build --preset dev
}

unit_tests() {
  local exclude=(-LE '^long$')
  [[ $long == yes ]] && exclude=()
  ctest --test-dir build/dev -j "$(nproc)" --output-on-failure \
    --output-junit "$PWD/build/results/ctest.xml" "${exclude[@]}" \
    2>&1 | tee build/results/ctest.log
}

# Comparisons with independent implementations.
property_tests() {
  local marker=(-m "not long")
  [[ $long == yes ]] && marker=()
  CARAVAN_BIN_DIR=$PWD/build/dev/bin build/venv/bin/python -m pytest \
    tests/property -q -rfEsP "${marker[@]}" -p no:cacheprovider \
    --junitxml=build/results/property.xml 2>&1 |
    tee build/results/property.log
}

integration_tests() {
  local marker=(-m "not long")
  [[ $long == yes ]] && marker=()
  CARAVAN_BIN_DIR=$PWD/build/dev/bin build/venv/bin/python -m pytest \
    tests/integration -q -rfEs "${marker[@]}" \
    --junitxml=build/results/pytest.xml 2>&1 | tee build/results/pytest.log
}

mkdir -p build/results
rm -f build/results/*.xml build/results/*.log
set_up
build
result=0
# Registers and spills of the GPU's kernels; needs nvcc, no GPU.
tests/gpu/build_report.sh 2>&1 | tee build/results/build_report.log || result=1
unit_tests || result=1
property_tests || result=1
integration_tests || result=1
echo
grep -E '% tests passed' build/results/ctest.log | tail -n 1 || true
for log in property pytest; do
  grep -E '(passed|failed|error|no tests ran).* in [0-9.]+s' \
    "build/results/$log.log" | tail -n 1 || true
done
echo
tests/junit_report.py build/results/{ctest,property,pytest}.xml || result=1
exit $result
