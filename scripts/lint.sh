#!/bin/sh
# Formatting, include directions, file sizes, words that promise unfinished work; clang-tidy with --tidy.
set -eu
cd "$(dirname "$0")/.."
status=0

files=$(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run -Werror $files || status=1
python3 scripts/check_layers.py src || status=1

long=$(wc -l $files | awk '$2 != "total" && $1 > 500 {print "    " $2 " has " $1 " lines"}' | grep -v unicode_tables || true)
[ -z "$long" ] || { echo "files above 500 lines:"; echo "$long"; status=1; }

unfinished=$(git grep -nIiE '\b(TODO|FIXME|XXX|HACK|for now|not implemented)\b' -- '*.cc' '*.h' '*.py' '*.sh' '*.cmake' |
             grep -v scripts/lint.sh || true)
[ -z "$unfinished" ] || { echo "unfinished words:"; echo "$unfinished"; status=1; }

if [ "${1:-}" = --tidy ]; then
  [ -f build/tidy/compile_commands.json ] || CXX=clang++ CC=clang cmake --preset dev -B build/tidy >/dev/null
  git ls-files 'src/*.cc' 'tools/*.cc' | grep -v -e '_test.cc$' -e '/isa_' |
    xargs -P "$(nproc)" -n 4 clang-tidy -p build/tidy --quiet 2>/dev/null || status=1
fi
exit $status
