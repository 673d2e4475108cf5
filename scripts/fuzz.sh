#!/bin/sh
# Runs every fuzz target for some seconds from the committed corpus: fuzz.sh BIN_DIR SECONDS [TARGET].
set -eu
bin=$1 seconds=$2 only=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
  target=$1
  name=$(basename "$target"); corpus=$root/tests/fuzz/corpus/${name#fuzz_}
  mkdir -p "$work/$name"
  [ -d "$corpus" ] && seeds=$corpus || seeds=
  # An input that takes a second, or half a gigabyte, is a fault like a crash.
  "$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=8192 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/$name" $seeds >"$work/$name.log" 2>&1 || {
    tail -40 "$work/$name.log"; echo "$name: FAILED"; return 1; }
  echo "$name: $(sed -n 's/stat::number_of_executed_units: *//p' "$work/$name.log") inputs, no finding"
}
# Two at a time: the machine that checks changes has two cores.
pids=""
for target in "$bin"/fuzz_*; do
  [ -x "$target" ] || continue
  [ -z "$only" ] || [ "$(basename "$target")" = "$only" ] || continue
  run "$target" & pids="$pids $!"
  set -- $pids
  if [ $# -ge 2 ]; then wait "$1" || exit 1; shift; pids="$*"; fi
done
for pid in $pids; do wait "$pid" || exit 1; done
