#!/usr/bin/env bash
# Every command of the program as a user would call it: run.sh BITNET SOURCE_DIR.
# Checks contents and exit codes; prints each check and fails if one fails. Needs bash and coreutils; with python3 the
# JSON documents are parsed in full, without it only looked at.
set -u
bitnet=$(realpath "$1")
source_dir=$(realpath "$2")
here="$source_dir/tests/e2e"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export BITNET_MODELS="$work/models" XDG_STATE_HOME="$work/state"
unset BITNET_CPU_ISA
n_passed=0
n_failed=0
n_skipped=0

check() { # check NAME CONDITION...: the condition is a command
  local name=$1
  shift
  if "$@"; then
    n_passed=$((n_passed + 1))
    echo "ok    $name"
  else
    n_failed=$((n_failed + 1))
    echo "FAIL  $name"
    if [ -s out ]; then echo "--- stdout"; head -c 2000 out; echo; fi
    if [ -s err ]; then echo "--- stderr"; head -c 2000 err; echo; fi
  fi
}
skip() {
  n_skipped=$((n_skipped + 1))
  echo "skip  $1: $2"
}
# call EXIT_CODE ARGUMENTS...: runs the program, stdout to `out`, stderr to `err`, no input; true if it ends so.
call() {
  local expected=$1
  shift
  "$bitnet" "$@" >out 2>err </dev/null
  local code=$?
  [ $code -eq "$expected" ] || { echo "exit code $code, expected $expected: bitnet $*" >>err; return 1; }
}
err_has() { grep -qF -- "$1" err; }
out_has() { grep -qF -- "$1" out; }
has_python=$(command -v python3 || true)
# json EXPRESSION: `out` is one JSON document d for which the Python expression holds.
json() {
  if [ -z "$has_python" ]; then
    head -c 1 out | grep -q '{'
    return
  fi
  python3 -c 'import json, math, sys
d = json.load(open("out", encoding="utf-8"))
sys.exit(0 if eval(sys.argv[1]) else "not so: " + sys.argv[1])' "$1" 2>>err
}
same() { cmp -s "$1" "$2"; }
hash_of() { "$bitnet" logits "$@" --json 2>err </dev/null | grep -o '"hash": "[0-9a-f]*"'; }

for part in help errors models text chat convert microsoft train training lora measure isa interrupt; do
  echo "== $part"
  # shellcheck source=/dev/null
  . "$here/$part.sh"
done

echo
echo "$n_passed passed, $n_failed failed, $n_skipped skipped"
[ "$n_failed" -eq 0 ]
