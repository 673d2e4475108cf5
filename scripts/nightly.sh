#!/bin/sh
# The long tests: scripts/nightly.sh [FOLDER OF THE BUILT TESTS, default build/dev/bin]. Every packed layout
# round-trips 10 million blocks by every instruction set of this machine.
set -e
bin=${1:-build/dev/bin}
BITNET_ROUND_TRIP_BLOCKS=${BITNET_ROUND_TRIP_BLOCKS:-10000000} "$bin/kernels_test" --gtest_filter='*RoundTrip*' \
  | grep -E 'came back|FAILED|PASSED|Failure'
