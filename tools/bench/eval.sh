#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# What schemes do to a real model's next tokens: kvcc eval of every preset, of auto at several budgets with a profile, and
# of Transformers' quantized caches where their packages are installed.
#
# Usage: eval.sh TEXT [MODEL-FOLDER [ARGUMENT of kvcc eval...]]
#
# The profile is measured on the first tenth of TEXT, the rest is evaluated: 6 passages of 256 + 512 tokens. MODEL-FOLDER is
# by default SmolLM2-135M, as `tools/dev setup --python` unpacks it. Needs the Python package: `tools/dev wheel`. Writes
# results/eval-DATE.{md,csv,json,svg}, anew after every passage. An hour of processor time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
env=${KVCC_BUILD_DIR:-$root/build}/python/env
die() { echo "eval.sh: $*" >&2; exit 1; }
[ $# -ge 1 ] || die "expected TEXT [MODEL-FOLDER [ARGUMENT...]], but got nothing"
[ -r "$1" ] || die "expected a file of text, but got '$1'"
[ -x "$env/bin/kvcc" ] || die "expected the Python package in $env, but got none; run tools/dev wheel"
model=${2:-$root/.venv-python/smollm2}
[ -e "$model/config.json" ] || die "expected a folder with a model, but got '$model'; tools/dev setup --python makes one"

schemes=q8_0,q4_0,q4_1,int8-token,int4-token,fp8,mxfp4,nvfp4,kivi-2,kivi-4,kivi-2-sink
schemes+=,innerq-base,innerq-small,innerq-hybrid,kvcc-2.5,kvcc-3,kvcc-3.5,kvcc-4,kvcc-4.5,kvcc-5
for backend in quanto hqq; do
  package=$backend
  [ $backend = hqq ] || package=optimum.quanto
  if "$env/bin/python" -c "import $package" 2> /dev/null; then schemes+=,$backend:4,$backend:2; fi
done
auto=()
for budget in 2.25 2.75 3.25 3.75 4.25; do auto+=(--scheme "auto; budget = $budget"); done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=$(basename "$1")
bytes=$(wc -c < "$1")
# At line ends, so that no character is cut.
head -c $((bytes / 10)) "$1" | sed '$d' > "$work/profiled"
tail -c +$((bytes / 10)) "$1" | sed 1d > "$work/$name"
"$env/bin/kvcc" profile "$model" --text "$work/profiled" --tokens 1024 -o "$work/profile.json"
outputs=()
for extension in md csv json svg; do outputs+=(-o "$root/tools/bench/results/eval-$(date +%F).$extension"); done
note="tools/dev bench eval TEXT: profile of the text's first tenth (1024 tokens, all queries)"
"$env/bin/kvcc" eval "$model" --text "$work/$name" --profile "$work/profile.json" --passages 6 \
  --scheme "$schemes" "${auto[@]}" --note "$note" "${outputs[@]}" "${@:3}"
