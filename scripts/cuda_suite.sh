#!/usr/bin/env bash
# The CUDA back end on a machine with a GPU, which need not be the one that builds.
#   scripts/cuda_suite.sh build FOLDER   builds here and puts the programs and this script into FOLDER
#   FOLDER/cuda_suite.sh run [RESULTS]   on the other machine, in a checkout (for tests/data and models): runs all tests
#                                        and the measurements of docs/benchmarks/cuda.md
set -euo pipefail

build() {
  cd "$(dirname "$0")/.."
  cmake --preset cuda >/dev/null
  cmake --build build/cuda -j "$(nproc)" --target gpu_test bitnet_cli
  mkdir -p "$1"
  for program in gpu_test bitnet; do strip -o "$1/$program" "build/cuda/bin/$program"; done
  cp scripts/cuda_suite.sh "$1/"
}

run() {
  local programs results model
  programs=$(cd "$(dirname "$0")" && pwd)
  results=${1:-$programs/results}
  mkdir -p "$results"
  model=$(mktemp -d)/2b4t.gguf
  trap 'rm -rf "$(dirname "$model")"' RETURN
  "$programs/bitnet" devices | tee "$results/devices.txt"
  "$programs/bitnet" synth --preset 2b4t -o "$model"
  "$programs/gpu_test" | tee "$results/gpu_test.txt" | grep -E 'FAILED|PASSED|SKIPPED|RMS'
  if command -v compute-sanitizer >/dev/null; then
    compute-sanitizer --error-exitcode 1 "$programs/gpu_test" \
      --gtest_filter='*Golden*packed*:*Attention*:*TernaryProductsOfExtremes:BatchOnGpu.P*:BatchOnGpu.AStep*' >"$results/memcheck.txt" || echo "memcheck failed"
    tail -1 "$results/memcheck.txt"
  fi
  measure() { "$programs/bitnet" bench -m "$model" --device cuda -t 1 -r 5 --phases --json "$@"; }
  measure -p 512 -n 64 >"$results/pp512_tg64.json"
  measure -p 2048 --chunk 2048 -n 64 -d 448 >"$results/pp2048_tg64_d448.json"
  measure -p 0 -n 64 -d 448 >"$results/tg64_d448.json"
  measure -p 0 -n 32 -d 448 --batch 8 >"$results/tg32_x8_d448.json"
  measure -p 0 -n 32 -d 1024 --batch 64 >"$results/tg32_x64_d1024.json"
  grep -h -E '"test"|"tokens_per_s"' "$results"/*.json
}

case "${1:-}" in
  build) build "${2:?where to put the programs}" ;;
  run) run "${2:-}" ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
