#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Fork and join of the thread pool of CPU targets.
#
# Usage: pool.sh [--record] [ARGUMENT of Google Benchmark...]
#
# Medians of 15 repetitions unless arguments say otherwise. --record, the first argument, writes results/pool-DATE.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${KVCC_BUILD_DIR:-$root/build}
record=
if [ "${1:-}" = --record ]; then record=$root/tools/bench/results/pool-$(date +%F).md; shift; fi
program=$build/bin/kvcc-bench-pool
[ -x "$program" ] || {
  echo "pool.sh: expected $program, but got none; Google Benchmark, which it needs, comes with tools/dev setup" >&2
  exit 1
}
run=("$program" --benchmark_repetitions=15 --benchmark_report_aggregates_only "$@")
[ -n "$record" ] || exec "${run[@]}"
result=$("${run[@]}")
cat > "$record" << END
Fork and join of the thread pool, \`tools/dev bench pool --record${*:+ $*}\`, $(date +%F),
$(lscpu | sed -n 's/^Model name: *//p'), $(nproc) processors:

\`\`\`
$result
\`\`\`
END
cat "$record"
