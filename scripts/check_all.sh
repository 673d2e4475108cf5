#!/usr/bin/env bash
# Beyond .ci/run: clang, sanitizers, fuzzing, ARM and older x86 processors under qemu. Needs an hour of two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
step() { echo; echo "=== [$((SECONDS - start)) s] $*"; }
scripts/install_deps.sh ci

step "clang: no warnings; unit tests under the address and undefined-behaviour sanitizers"
cmake --preset clang-asan >/dev/null
cmake --build build/clang-asan -j "$(nproc)" -- --quiet
ctest --test-dir build/clang-asan -j "$(nproc)" --output-on-failure -L unit

step "fuzzing: 60 s each"
scripts/fuzz.sh build/clang-asan/bin 60

step "thread sanitizer: the parts that share memory between threads"
cmake --preset tsan -DBITNET_TOOLS=OFF >/dev/null
cmake --build build/tsan -j "$(nproc)" --target base_test runtime_test -- --quiet
build/tsan/bin/base_test --gtest_brief=1
build/tsan/bin/runtime_test --gtest_brief=1 --gtest_filter='*Thread*:*Session*'

step "aarch64 under qemu: every NEON variant"
cmake --preset aarch64 >/dev/null
cmake --build build/aarch64 -j "$(nproc)" --target base_test quant_test kernels_test model_test -- --quiet
for isa in neon neon_dotprod neon_i8mm; do
  echo "BITNET_CPU_ISA=$isa"
  for test in kernels_test model_test; do
    BITNET_CPU_ISA=$isa qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu build/aarch64/bin/$test --gtest_brief=1
  done
done
# A processor without the newer instructions must fall back, not trap.
qemu-aarch64 -cpu cortex-a57 -L /usr/aarch64-linux-gnu build/aarch64/bin/kernels_test --gtest_brief=1

step "older x86 processors under qemu: the dispatch must not trap"
for cpu in Nehalem Haswell; do
  echo "cpu $cpu"
  qemu-x86_64 -cpu $cpu build/dev/bin/model_test --gtest_brief=1 --gtest_filter='*Golden*'
done

step "done in $((SECONDS - start)) s"
