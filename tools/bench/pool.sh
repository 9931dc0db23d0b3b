#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Fork and join of the thread pool of CPU targets.
#
# Usage: pool.sh [--record] [ARGUMENT of Google Benchmark...]
#
# Medians of 15 repetitions unless arguments say otherwise. --record writes results/pool-DATE.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${KVCC_BUILD_DIR:-$root/build}
record=
if [ "${1:-}" = --record ]; then record=$root/tools/bench/results/pool-$(date +%F).md; shift; fi
cmake --build "$build" --target kvcc-bench-pool > /dev/null
run=("$build/bin/kvcc-bench-pool" --benchmark_repetitions=15 --benchmark_report_aggregates_only "$@")
[ -n "$record" ] || exec "${run[@]}"
{
  echo "Fork and join of the thread pool, \`tools/dev bench pool --record${*:+ $*}\`, $(date +%F),"
  echo "$(lscpu | sed -n 's/^Model name: *//p'), $(nproc) processors:"
  echo
  echo '```'
  "${run[@]}" 2> /dev/null
  echo '```'
} | tee "$record"
