#!/bin/sh
# Installs the Debian/Ubuntu packages that are missing for a purpose: build, test, bench, lint, ci (all of them and the
# cross-compiler). With --check it installs nothing and says what is missing.
set -eu
check=0
[ "${1:-}" = --check ] && { check=1; shift; }
purpose=${1:-build}

build="g++ cmake ninja-build nlohmann-json3-dev libcli11-dev libfmt-dev libxxhash-dev libtomlplusplus-dev libeigen3-dev libedit-dev"
test="$build libgtest-dev libbenchmark-dev python3"
bench="$test libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4"
lint="clang-format clang-tidy python3"
ci="$test $lint clang libclang-rt-14-dev g++-aarch64-linux-gnu qemu-user googletest"
case $purpose in
  build) packages=$build ;;
  test) packages=$test ;;
  bench) packages=$bench ;;
  lint) packages=$lint ;;
  ci) packages=$ci ;;
  *) echo "usage: install_deps.sh [--check] build|test|bench|lint|ci" >&2; exit 2 ;;
esac

# A tool that is already on the path needs no package, wherever it came from.
present() {
  case $1 in
    g++ | clang | clang-format | clang-tidy | python3) command -v "$1" >/dev/null 2>&1 ;;
    cmake) command -v cmake >/dev/null 2>&1 && [ "$(printf '%s\n' 3.25 "$(cmake --version | sed -n '1s/[^0-9]*//p')" | sort -V | head -1)" = 3.25 ] ;;
    ninja-build) command -v ninja >/dev/null 2>&1 ;;
    *) dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
  esac
}

if ! command -v dpkg-query >/dev/null 2>&1; then
  [ $check = 1 ] || echo "install_deps: not a Debian system: please install by hand: $packages" >&2
  exit 0
fi
missing=""
for package in $packages; do present "$package" || missing="$missing $package"; done
[ -n "$missing" ] || exit 0
if [ $check = 1 ]; then
  echo "Missing packages:$missing" >&2
  echo "Run 'make deps' (or: apt-get install$missing)" >&2
  exit 5
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "install_deps: please run as root: apt-get install$missing" >&2; exit 5; }
  sudo=sudo
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
