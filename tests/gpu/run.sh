#!/usr/bin/env bash
# Tests and figures on a machine with a GPU, which need not have our packages.
#
#   tests/gpu/run.sh prepare [BUILD]   here: builds BUILD (build/dev) and fills
#                                      build/gpu-bundle, below 60 MB
#   run.sh check                       there, in the bundle: contract tests,
#                                      then memcheck and racecheck where
#                                      compute-sanitizer is installed
#   run.sh measure                     there: ceilings and phases of an 8B layer
#
# check and measure take at most 9 minutes each and need nothing but a driver.
set -euo pipefail

limit_seconds=530
limit_bytes=$((60 << 20))
# Not carried: what every machine has in a version of its own.
not_carried='/(ld-linux|libc\.so|libm\.so|libdl|librt|libpthread|libstdc|libgcc)'

prepare() {
  cd "$(dirname "$0")/../.."
  local build=${1:-build/dev} bundle=build/gpu-bundle
  [[ -f $build/build.ninja ]] || cmake --preset dev -B "$build"
  ninja -C "$build" worker_ops_cuda_test gpu_bench
  rm -rf "$bundle"
  mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/deploy"
  cp "$build/bin/worker_ops_cuda_test" "$build/bin/gpu_bench" "$bundle/bin"
  strip "$bundle"/bin/*
  ldd "$bundle"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    { grep -Ev "$not_carried" || true; } | xargs -r cp -Lt "$bundle/lib"
  cp -r deploy/demo-model "$bundle/deploy"
  cp tests/gpu/run.sh "$bundle"
  local bytes
  bytes=$(du -sb "$bundle" | cut -f1)
  echo "$bundle: $bytes bytes"
  if ((bytes > limit_bytes)); then
    echo "the bundle must be at most $limit_bytes bytes" >&2
    return 1
  fi
}

check() {
  cd "$(dirname "$0")"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
  timeout 220 bin/worker_ops_cuda_test --gtest_brief=1 \
    --gtest_filter='Machine*:*/Machine*'
  local sanitizer tool
  sanitizer=$(command -v compute-sanitizer || true)
  if [[ -z $sanitizer ]]; then
    echo "compute-sanitizer is not installed: memcheck and racecheck skipped"
    return
  fi
  for tool in memcheck racecheck; do
    timeout 155 "$sanitizer" --tool "$tool" --error-exitcode 1 \
      bin/worker_ops_cuda_test --gtest_brief=1 \
      --gtest_filter='Machine*MqaHead8:*Sampler*/Machine:Machine/CudaModel*'
  done
}

measure() {
  cd "$(dirname "$0")"
  nvidia-smi --query-gpu=name,clocks.sm,power.draw --format=csv || true
  timeout "$limit_seconds" bash -c \
    'bin/gpu_bench --tokens 1,8,64 --context 512 &&
     bin/gpu_bench --tokens 1,8,64 --context 512 --graphs &&
     bin/gpu_bench --tokens 64 --context 2048 --prefill 0 &&
     bin/gpu_bench --tokens 256 --context 512 --prefill 0'
}

case ${1:-} in
  prepare) prepare "${2:-}" ;;
  check) check ;;
  measure) measure ;;
  *)
    sed -n '2,13p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
