#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The main job on real tensors: SmolLM2-135M's config.json and captured q, K, V in; a compiled, cached, checked
# decode-attention kernel out, with what was chosen and measured. Called by tools/dev demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kvcc=${KVCC_BUILD_DIR:-build}/bin/kvcc
model=test/models/smollm2-135m-instruct.json
data=test/data/smollm2-135m.safetensors
scheme=${1:-innerq-small}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

section() { printf '\n== %s\n' "$*"; }

section "What is chosen for $(basename $model .json), and why"
"$kvcc" explain $model --scheme "$scheme" --target cpu

section "Compiled for this CPU and for an H100 (sm_90): cold, then from the cache in a new process"
form=cubin
if ! "$kvcc" doctor -o json | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["nvrtc"]["found"])'; then
  echo "NVRTC was not found (see kvcc doctor), so CUDA C++ text stands in for the cubin"
  form=cuda
fi
for target in cpu cuda:sm_90; do
  for round in cold warm; do
    output=$scratch/kernel
    if [ $target = cpu ]; then emit=object; else emit=$form; fi
    KVCC_CACHE_DIR=$scratch/cache "$kvcc" compile $model --scheme "$scheme" --target $target --emit $emit \
      -o "$output" 2>&1
  done
  echo "  $emit: $(stat -c %s "$output") bytes"
done

section "One decode step over captured tensors of four layers, compared with exact attention"
echo "kernel error: against exact attention over the cache as stored; total error: over the original tensors"
for layer in 0 8 14 29; do
  "$kvcc" run --model $model --scheme "$scheme" --target cpu --input $data --layer $layer --check \
    --output "$scratch/out.safetensors"
done

section "Time per step against the fp16 kernel, in one run"
"$kvcc" bench $model --scheme "$scheme",fp16 --target cpu --ctx 4096 --batch 4 --rounds 10
echo
echo "bandwidth_gbps is this machine's read bandwidth, measured in the same run; rel_error is against exact"
echo "attention over random tensors."
