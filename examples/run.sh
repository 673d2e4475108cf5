#!/usr/bin/env bash
# run.sh NAME BIN_DIR: runs an example in a folder of its own, with the shipped model in models/, and compares what it
# prints with expected/NAME.txt. Its arguments stand in args/NAME.txt, its input in input/NAME.txt, if there are any;
# setup/NAME.sh runs before it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1
bin=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$here/../models" models
export PATH="$bin:$PATH"
args=()
[ ! -f "$here/args/$name.txt" ] || mapfile -t args <"$here/args/$name.txt"
[ ! -f "$here/setup/$name.sh" ] || bash "$here/setup/$name.sh" >setup.log 2>&1 || { cat setup.log; exit 1; }
input=/dev/null
[ ! -f "$here/input/$name.txt" ] || input=$here/input/$name.txt
"$bin/$name" "${args[@]}" <"$input" >out || { echo "exit code $?"; cat out; exit 1; }
diff -u "$here/expected/$name.txt" out
