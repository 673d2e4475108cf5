#!/usr/bin/env bash
# The CUDA back end on a machine with a GPU, which need not be the one that builds.
#   scripts/cuda_suite.sh build FOLDER   builds here and puts the programs and this script into FOLDER
#   FOLDER/cuda_suite.sh run [RESULTS]   on the other machine, in a checkout (for tests/data and models): runs all tests,
#                                        compute-sanitizer's tools on small shapes, and the measurements of
#                                        docs/benchmarks/cuda.md; ends within 8 minutes with one summary
set -euo pipefail

# Every kernel on small shapes; the operations' larger tests would take the tools minutes.
small_shapes='CudaKernels.*:CudaOps.*:CudaTraining.AttentionOn*:CudaTraining.TheSame*:CudaTraining.Updates*-*EveryShape:*EveryNumberOfTokens*:*AttentionForEvery*:*MemoryIsCleared*'
# Without the kernel of all layers, whose named barriers racecheck does not follow (docs/benchmarks/cuda.md).
racecheck_shapes="$small_shapes:*KernelOfAllLayers*"

build() {
  cd "$(dirname "$0")/.."
  cmake --preset cuda >/dev/null
  cmake --build build/cuda -j "$(nproc)" --target gpu_test bitnet_cli
  mkdir -p "$1"
  for program in gpu_test bitnet; do strip -o "$1/$program" "build/cuda/bin/$program"; done
  cp scripts/cuda_suite.sh "$1/"
}

# One test under one tool: a line of the summary.
sanitize() {
  local tool=$1 test=$2 start=$SECONDS result=passed
  timeout 150 compute-sanitizer --tool "$tool" --error-exitcode 9 "$programs/gpu_test" --gtest_filter="$test" \
    >"$results/$tool.$test.txt" 2>&1 || result="FAILED ($?)"
  echo "$tool $test: $result, $((SECONDS - start)) s"
}

measure() {
  local name=$1
  shift
  timeout 60 "$programs/bitnet" bench -m "$model" --device cuda -t 1 --json "$@" >"$results/$name.json" 2>&1 ||
    echo "bench $name: FAILED"
  grep -E '"(test|tokens_per_s)"' "$results/$name.json" | tr -d '\n",' | sed 's/  */ /g; s/ test:/\n&/2g' || true
  echo
}

# Tokens/s of training steps; the text's words do not matter.
measure_training() {
  echo "train $1: $(timeout 120 "$programs/bitnet" train --device cuda --text README.md --dry-run "${@:2}" 2>&1 |
    grep -E '^time|rror' | sed 's/.* at //')"
}

run() {
  export programs results model
  programs=$(cd "$(dirname "$0")" && pwd)
  results=${1:-$programs/results}
  mkdir -p "$results"
  model=$(mktemp -d)/2b4t.gguf
  trap 'rm -rf "$(dirname "$model")"' RETURN
  "$programs/bitnet" synth --preset 2b4t -o "$model" >/dev/null
  {
    "$programs/bitnet" devices
    # First what is timed: nothing else runs then.
    measure pp512_tg64 -r 5 -p 512 -n 64 --phases
    measure tg64_sampled -r 5 -p 0 -n 64 --sample
    measure pp2048 -r 5 -p 2048 --chunk 2048 -n 0 --phases
    measure tg64_d448 -r 5 -p 0 -n 64 -d 448 --phases
    measure tg64_sampled_d448 -r 5 -p 0 -n 64 -d 448 --sample
    measure tg32_x8_d448 -r 3 -p 0 -n 32 -d 448 --batch 8 --phases
    measure tg32_x8_d448_int8 -r 3 -p 0 -n 32 -d 448 --batch 8 --kv int8 --phases
    measure tg32_x64_d1024 -r 2 -p 0 -n 32 -d 1024 --batch 64 --phases
    measure tg32_x64_d1024_int8 -r 2 -p 0 -n 32 -d 1024 --batch 64 --kv int8 --phases
    measure_training 124m --n-layers 12 --d-model 768 --n-heads 12 --d-ff 2048 --vocab-size 50304 --n-ctx 1024 --batch 64
    measure_training 2b4t --preset 2b4t --n-ctx 2048 --batch 4
    timeout 200 "$programs/gpu_test" >"$results/gpu_test.txt" 2>&1 || echo "gpu_test: FAILED ($?)"
    grep -E '^\[  (FAILED|PASSED|SKIPPED)|tests ran|RMS' "$results/gpu_test.txt" || true
    if command -v compute-sanitizer >/dev/null; then
      export -f sanitize
      list() {
        "$programs/gpu_test" --gtest_list_tests --gtest_filter="$2" |
          awk -v tool="$1" '/^[^ ]/ {suite = $1} /^ / {print tool, suite $1}'
      }
      { list racecheck "$racecheck_shapes" && list memcheck "$small_shapes"; } | xargs -P 8 -L 1 bash -c 'sanitize "$0" "$1"'
    else
      echo "compute-sanitizer: not there"
    fi
    echo "all: $SECONDS s"
  } | tee "$results/summary.txt"
}

case "${1:-}" in
  build) build "${2:?where to put the programs}" ;;
  run) run "${2:-}" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
