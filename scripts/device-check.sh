#!/bin/bash
# What a GPU says to the CUDA kernels, in one go: are they right, and how fast are they? Needs neither cargo nor network.
#
#   scripts/device-check.sh PROGRAM TESTS [STEP...]
#
# PROGRAM is `sparsify-exp` and TESTS the test binary `cuda`, both built with `--features cuda`; run it in the repository.
# Every step has a log in $OUT (default: device-check/), ends at its own limit and hides no other's failure; steps.txt there
# says how each ended and how long it took. Steps, in their order, with their limits in seconds; without any named, the
# first eight, which together end within 500:
#
#   edges      90   sparse and dense products at every edge, small ones first, launched and in a graph
#   parts      40   norms, gates, attention, tables, arg-max against the CPU
#   tokens     60   tokens by graphs are those by launches: families, and wide matrices
#   s1         40   experiments/s1.toml on the GPU, the gate included
#   layers     60   Llama-2-7B's shape with 4 and 8 blocks, dense: what a block costs, launch by launch
#   decode     90   all 32 blocks: dense, csr at 50, 70 and 90 %, bitmap
#   products   70   11008 x 4096 at 1, 16, 64 and 256 tokens beside the dense product
#   torch      50   PyTorch with CUDA graphs on the same card, where it is installed
#   batch      90   16 sequences at a time, dense and bitmap
#   families  120   the decoders of tests/fixtures against the CPU, in three dtypes
#   older     400   the edges and parts by the code of Turing (7.5), Ampere (8.0) and Ada (8.9), and s1 so
#   profile    60   `run --profile` on a small model: the table and the figure
#   kernels   300   experiments/kernels-cuda.toml
#   memcheck  300   compute-sanitizer on the edges
#   racecheck 300   likewise
set -uo pipefail

[ $# -ge 2 ] || { sed -n '4p' "$0" | cut -c3-; exit 2; }
program=$(realpath "$1") tests=$(realpath "$2")
shift 2
for file in "$program" "$tests"; do
  [ -x "$file" ] || { echo "$file is no program"; exit 2; }
done
[ $# -gt 0 ] || set -- edges parts tokens s1 layers decode products torch
out=${OUT:-device-check}
mkdir -p "$out"
: >"$out/steps.txt"
failed=0

# NAME LIMIT COMMAND...: a log, how it ended, and the last lines of what it said.
step() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  echo "== $name"
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  case $code in
    0) ended="right" ;;
    124 | 137) ended="not done after $limit s" failed=1 ;;
    *) ended="failed ($code)" failed=1 ;;
  esac
  tail -n "${LINES_SHOWN:-25}" "$out/$name.log" | cut -c1-220
  echo "$name: $ended, $((SECONDS - begin)) s" | tee -a "$out/steps.txt"
}

# Tests of the binary, by their names, told as they go.
asked() { "$tests" --ignored --nocapture --test-threads=1 "$@"; }
# Likewise, each in a process of its own and several at a time: a process compiles one kernel after the other.
apart() {
  local names
  names=$("$tests" --ignored --list --format terse "$@" | sed -n 's/: test$//p')
  [ -n "$names" ] || { echo "no test is called $*"; return 1; }
  xargs -P 8 -I{} bash -o pipefail -c 'asked --exact {} 2>&1 | sed -u "s/^/{}  /"' <<<"$names"
}
speed() { asked --exact speed::speed_of_generating; }
blocks() {
  for count in 4 8; do
    echo "$count blocks"
    LAYERS=$count SPARSITY=0,0.7 STAGES=1 speed || return
  done
}
generation() { SPARSITY=0,0.5,0.7,0.9 FORMAT=csr speed && SPARSITY=0.7 FORMAT=bitmap speed; }
sequences() { BATCH=16 SPARSITY=0 speed && BATCH=16 SPARSITY=0.5,0.7,0.9 FORMAT=bitmap speed; }
run() { "$program" run "$@" --results "$out/results" --offline -s 'device.backend="cuda"'; }
baseline() { python3 -c 'import torch' 2>/dev/null && python3 scripts/decode-torch.py || echo "no PyTorch here"; }
sanitized() { compute-sanitizer --tool "$1" --error-exitcode 9 "$tests" --ignored --nocapture --test-threads=1 linear::edges; }
older() {
  local code=0 of
  for of in 75 80 89; do
    export SPARSIFY_EXP_KERNELS_OF=$of
    echo "as $of"
    # Turing's tensor cores know no sparse matrices.
    apart linear::edges $([ "$of" -ge 80 ] || echo --skip nm) || code=1
    apart attention:: decode:: --skip tokens_of --skip decoders || code=1
    run experiments/s1.toml -s 'model.dtype="f16"' -s "name=\"s1-as-$of\"" || code=1
  done
  return $code
}
export tests program out
export -f asked apart older speed blocks generation sequences run baseline sanitized

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | tee -a "$out/steps.txt"
for name in "$@"; do
  case $name in
    edges) step edges 90 bash -c 'apart linear::edges; code=$?; asked linear::large && exit $code' ;;
    parts) step parts 40 bash -c 'apart attention:: decode:: --skip tokens_of --skip decoders' ;;
    tokens) step tokens 60 bash -c 'asked decode::tokens_of' ;;
    s1) step s1 40 bash -c 'run experiments/s1.toml && run experiments/s1.toml' ;;
    layers) step layers 60 bash -c blocks ;;
    decode) step decode 90 bash -c generation ;;
    products) step products 70 bash -c 'SHAPES=11008x4096 asked --exact speed::speed_of_products' ;;
    torch) step torch 50 bash -c baseline ;;
    batch) step batch 90 bash -c sequences ;;
    families) step families 120 bash -c 'asked --exact decode::decoders' ;;
    older) step older 400 bash -c older ;;
    profile) step profile 60 bash -c 'run experiments/s1.toml --profile -s "measure.metrics=[\"structure\", \"latency\"]" -s measure.prompt=8 -s measure.generate=8 -s name=\"profiled\" && cat "$out/results/profiled/tables/profile.csv"' ;;
    kernels) step kernels 300 bash -c 'run experiments/kernels-cuda.toml && cat "$out/results/kernels-cuda/tables/kernels.csv"' ;;
    memcheck) step memcheck 300 bash -c 'sanitized memcheck' ;;
    racecheck) step racecheck 300 bash -c 'sanitized racecheck' ;;
    *) echo "$name is no step: see the head of $0" && failed=1 ;;
  esac
done
echo "== all"
cat "$out/steps.txt"
exit $failed
