#!/usr/bin/env bash
# Builds Caravan, starts its four services with the embedded model and streams
# a story through the gateway.
#
# Usage: deploy/quickstart.sh [--once] [--prompt TEXT] [--seed N]
#   --once         stop after the first story
#   --prompt TEXT  how the story begins (default: "Once upon a time")
#   --seed N       same seed, same story (default: 7)
set -euo pipefail

once=no
prompt="Once upon a time"
seed=7
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
need_value() {
  [[ $# -ge 2 ]] || { echo "$1 needs a value" >&2; exit 2; }
}
while [[ $# -gt 0 ]]; do
  case $1 in
    --once) once=yes ;;
    --prompt) need_value "$@"; prompt=$2; shift ;;
    --seed) need_value "$@"; seed=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown argument: $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "$0")/.."
deploy/install_packages.sh build

binaries=(caravan-tokenizer caravan-router caravan-worker caravan-gateway
          caravan)
if [[ ! -f build/release/build.ninja ]]; then
  # Kernels are built where there is a GPU to run them.
  cuda=OFF
  [[ ! -e /dev/nvidiactl ]] || cuda=AUTO
  cmake --preset release -DCARAVAN_CUDA="$cuda" >&2
fi
ninja -C build/release "${binaries[@]}" >&2

# `up` prints READY with the real ports as its last line before it serves.
ports=()
[[ $once == yes ]] && ports=(--http-port 0 --grpc-port 0)
exec {up_output}< <(exec build/release/bin/caravan up \
  --model deploy/demo-model "${ports[@]}")
up_pid=$!
trap 'kill -TERM "$up_pid" 2>/dev/null || true' EXIT

ready=
while IFS= read -r line <&"$up_output"; do
  if [[ $line == READY* ]]; then
    ready=$line
    break
  fi
  echo "$line" >&2
done
[[ -n $ready ]] || { echo "caravan up ended before it was ready" >&2; exit 1; }
field() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$ready"; }
grpc=$(field grpc)
http=$(field http)

build/release/bin/caravan generate --gateway "$grpc" --echo \
  --prompt "$prompt" --seed "$seed" --max-tokens 220

if [[ $once == yes ]]; then
  kill -TERM "$up_pid"
  wait "$up_pid"
  trap - EXIT
  exit 0
fi

cat >&2 <<MESSAGE

Caravan is up. Ctrl-C stops it. Call it from another terminal:

  curl -N http://$http/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "demo-model", "stream": true, "seed": $seed,
         "messages": [{"role": "user", "content": "Tell me a story about a bear."}]}'

  pip install openai, then in Python:
    from openai import OpenAI
    client = OpenAI(base_url="http://$http/v1", api_key="none")
    for event in client.completions.create(
            model="demo-model", prompt="Once upon a time", max_tokens=200,
            seed=$seed, stream=True):
        print(event.choices[0].text, end="", flush=True)

  build/release/bin/caravan chat --gateway $grpc
MESSAGE
trap 'kill -TERM "$up_pid" 2>/dev/null' INT TERM
# The first wait ends when the signal's trap has run; the second is for `up`.
wait "$up_pid" || true
wait "$up_pid" 2>/dev/null || true
trap - EXIT
