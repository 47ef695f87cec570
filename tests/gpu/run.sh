#!/usr/bin/env bash
# Tests and figures on a machine with a GPU, which need not have our packages.
#
#   tests/gpu/run.sh prepare [BUILD]   here: builds BUILD (build/dev) and fills
#                                      build/gpu-bundle, below 60 MB
#   run.sh check                       there, in the bundle: contract tests,
#                                      then memcheck and racecheck where
#                                      compute-sanitizer is installed
#   run.sh measure                     there: ceilings and phases of an 8B layer
#   run.sh cells [FOLDER]              there: the table of cells, exact and
#                                      fast, of an 8B model with random weights
#                                      that is written into FOLDER (/dev/shm)
#   run.sh small-cells [FOLDER]        there: C5 and C6, of that model in fp8
#                                      and in 4 bits
#
# Each takes at most 9 minutes and needs nothing but a driver. The fast profile
# also needs libcublasLt of the toolkit's version, which is looked for among the
# machine's libraries and Python's packages, and never carried.
set -euo pipefail

limit_seconds=530
limit_bytes=$((60 << 20))
# Not carried: what every machine has in a version of its own.
not_carried='/(ld-linux|libc\.so|libm\.so|libdl|librt|libpthread|libstdc|libgcc)'

prepare() {
  cd "$(dirname "$0")/../.."
  local build=${1:-build/dev} bundle=build/gpu-bundle
  [[ -f $build/build.ninja ]] || cmake --preset dev -B "$build"
  ninja -C "$build" worker_ops_cuda_test gpu_bench caravan
  rm -rf "$bundle"
  mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/deploy"
  cp "$build"/bin/{worker_ops_cuda_test,gpu_bench,caravan} "$bundle/bin"
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

# Lets the loader find libcublasLt.so.13 where it is not among its libraries.
find_cublaslt() {
  local name=libcublasLt.so.13 found
  if ldconfig -p 2>/dev/null | grep -q "$name"; then return; fi
  found=$(find /usr/local/cuda*/ /usr/lib /opt "$HOME" \
    "$(python3 -c 'import site; print(site.getsitepackages()[0])' 2>/dev/null ||
      true)" -maxdepth 9 -name "$name" -print -quit 2>/dev/null || true)
  if [[ -z $found ]]; then
    echo "$name was not found: the fast profile is skipped"
    return
  fi
  echo "cuBLASLt: $found"
  export LD_LIBRARY_PATH="$(dirname "$found")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

check() {
  cd "$(dirname "$0")"
  find_cublaslt
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

cells() {
  cd "$(dirname "$0")"
  find_cublaslt
  local folder=${1:-/dev/shm/caravan-8b}
  [[ -f $folder/config.json ]] ||
    timeout 200 bin/caravan make-model "$folder" --shape llama-3-8b \
      --type bf16 --seed 1
  local common=(bench --engine --device cuda --model "$folder"
    --max-step-tokens 2048)
  timeout 160 bin/caravan "${common[@]}" --cells all
  timeout 160 bin/caravan "${common[@]}" --cells C1,C3 --profile fast \
    --gemm-algorithms "$folder.algorithms" ||
    echo "the fast profile was not measured"
}

# Each of them quantizes the model when it loads it, on the processor.
small_cells() {
  cd "$(dirname "$0")"
  local folder=${1:-/dev/shm/caravan-8b}
  [[ -f $folder/config.json ]] ||
    timeout 200 bin/caravan make-model "$folder" --shape llama-3-8b \
      --type bf16 --seed 1
  local common=(bench --engine --device cuda --model "$folder"
    --max-step-tokens 2048)
  timeout 160 bin/caravan "${common[@]}" --weights fp8 --activations fp8 \
    --kv fp8 --cells C5 || echo "C5 was not measured"
  timeout 160 bin/caravan "${common[@]}" --weights q4_0 --activations bf16 \
    --kv bf16 --cells C6 || echo "C6 was not measured"
}

case ${1:-} in
  prepare) prepare "${2:-}" ;;
  check) check ;;
  measure) measure ;;
  cells) cells "${2:-}" ;;
  small-cells) small_cells "${2:-}" ;;
  *)
    sed -n '2,18p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
