#!/usr/bin/env bash
# What ptxas says of every kernel: registers, shared memory, stack, spills.
# Fails on spills in the kernels named below, and on warnings that cost more
# than they look: serialized wgmma, ignored setmaxnreg. Needs nvcc, no GPU.
#
# Usage: tests/gpu/build_report.sh [ARCH ...]   (default: 90a)
set -euo pipefail
cd "$(dirname "$0")/../.."

nvcc=$(command -v nvcc || true)
[[ -n $nvcc ]] || nvcc=/usr/local/cuda/bin/nvcc
if [[ ! -x $nvcc ]]; then
  echo "build report: skipped, nvcc is not installed"
  exit 0
fi
architectures=("$@")
[[ ${#architectures[@]} -gt 0 ]] || architectures=(90a)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
result=0
for architecture in "${architectures[@]}"; do
  "$nvcc" -std=c++20 -O3 --fmad=false --expt-relaxed-constexpr -Xptxas=-v \
    -gencode "arch=compute_$architecture,code=sm_$architecture" -I. \
    -c worker/ops/cuda/kernels.cu -o "$work/kernels.o" 2>"$work/log" || {
    cat "$work/log"
    exit 1
  }
  python3 tests/gpu/build_report.py "$architecture" "$work/log" || result=1
done
exit $result
