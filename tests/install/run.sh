#!/bin/sh
# Installs a build under a prefix of its own, then configures, builds and runs the consumer against it.
# Usage: run.sh BUILD_DIR SOURCE_DIR
set -eu
build=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "run.sh: $1" >&2
  exit 1
}

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log" || fail "install failed: $(cat "$work/install.log")"
# The compiler of the build: a static library carries no other's runtime.
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
cmake -S "$source/tests/install" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release >"$work/configure.log" 2>&1 ||
  fail "configuring the consumer failed: $(cat "$work/configure.log")"
cmake --build "$work/build" >"$work/build.log" 2>&1 || fail "building the consumer failed: $(cat "$work/build.log")"

# A file that is not there is a typed error with its exit code, not a crash.
status=0
answer=$("$work/build/consumer" "$work/no-such-model.gguf") || status=$?
echo "$answer"
[ "$status" -eq 3 ] || fail "a missing model gave exit status $status, expected 3"
case $answer in
  "error: invalid_input: "*no-such-model.gguf*) ;;
  *) fail "a missing model printed '$answer'" ;;
esac

answer=$("$work/build/consumer" "$source/tests/data/hf/bitnet-packed") || fail "the tiny model failed: $answer"
echo "$answer"
[ "$(echo "$answer" | wc -w)" -eq 9 ] || fail "the tiny model printed '$answer', expected 8 ids"

model=$source/models/storyteller-29m.gguf
if [ -f "$model" ]; then
  answer=$("$work/build/consumer" "$model") || fail "the shipped model failed: $answer"
  echo "$answer"
  case $answer in
    "text: "?*) ;;
    *) fail "the shipped model printed '$answer'" ;;
  esac
fi
