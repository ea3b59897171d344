#!/usr/bin/env bash
# Sets up, builds and runs the tests.
#
#   launch/test.sh            unit, MPI, parity (golden files) and system tests; also the live parity where the reference
#                             packages are installed
#   launch/test.sh --peers    installs the reference packages first (several GB); fuzzers, 20 seconds each under ASan/UBSan
#   launch/test.sh --long     also what takes long: the unit tests and fuzzers under ASan/UBSan, all kill-and-resume seeds, and a real Slurm
#                             where it is installed (as root: apt-get install slurm-wlm munge)
set -euo pipefail
. "$(dirname "$0")/common.sh"

peers=no
long=no
for argument in "$@"; do
  case $argument in
    --peers) peers=yes ;;
    --long) long=yes ;;
    *) fail "test.sh: unknown argument '$argument' (allowed: --peers, --long)" ;;
  esac
done

if [ "$peers" = yes ]; then "$root/launch/setup.sh" --peers; else "$root/launch/setup.sh"; fi
build
cd "$root"

say "Tests"
[ "$long" = no ] || export TEMPER_LONG=1
# Tests run beside each other: threads that wait for one another leave the core to those that work.
export OMP_WAIT_POLICY=passive
ctest --preset release

if [ -e "$packages/peers/installed" ]; then
  say "Live parity, against the reference packages"
  tests/parity/live.sh "$packages/peers/bin/python" "$root/build-release"
else
  say "Live parity: skipped, the reference packages are not installed (launch/test.sh --peers)"
fi

if [ "$long" = yes ]; then
  build asan
  say "Unit tests, and 20 seconds of each fuzzer, under ASan and UBSan"
  ctest --preset asan -L 'unit|fuzz'
elif [ "$peers" = yes ]; then
  build asan fuzzers
  say "20 seconds of each fuzzer, under ASan and UBSan"
  ctest --preset asan -L fuzz
fi
say "All tests passed"
