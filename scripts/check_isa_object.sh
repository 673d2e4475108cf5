#!/bin/sh
# An instruction set's object may define only its own entry points: a weak (inline or template) symbol compiled for a
# newer processor could replace the baseline copy at link time and crash older ones; a static initialiser would run
# before the dispatch.
for object in "$@"; do
  bad=$("${NM:-nm}" -C "$object" | grep -E ' [WVu] | _GLOBAL__sub_I') && { echo "$object:"; echo "$bad"; exit 1; }
done
exit 0
