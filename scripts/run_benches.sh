#!/usr/bin/env bash
# run_benches.sh BUILD_DIR [OPTIONS...]: runs every micro-benchmark of that build, one after the other, and says where
# the JSON lies. OPTIONS go to Google Benchmark: --benchmark_filter=attention, --benchmark_min_time=0.1.
set -euo pipefail
build=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
out=$build/results
mkdir -p "$out"
while read -r name args; do
  echo "=== $name"
  # A filter may leave nothing of a program; that is no failure.
  # shellcheck disable=SC2086
  "$build/bin/$name" $args --benchmark_out="$out/$name.json" --benchmark_out_format=json "$@" </dev/null ||
    { [ ! -s "$out/$name.json" ] || exit 1; }
done <"$build/benches.txt"
echo "JSON: $out/*.json"
