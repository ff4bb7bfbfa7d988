#!/bin/bash
# Cells a minute by 1, 2 and 4 workers, on as many GPUs as there are (or on the CPU), without network.
#
#   scripts/workers-demo.sh [PROGRAM [WORKERS...]]      default: target/release/sparsify-exp 1 2 4
#
# A sweep of 64 cells of a random model with the shape of OPT-125m, by Wanda and SparseGPT, whose perplexity is measured;
# then a few cells that are timed, which no other worker may disturb: their times are shown for each number of workers.
# A first run, which is not counted, fills the cache of compiled kernels. BACKEND=flex takes the CPU, MODEL another
# model, CONTEXT and WINDOWS other lengths and numbers of windows.
set -euo pipefail

program=$(realpath "${1:-target/release/sparsify-exp}")
shift || true
if [ $# -eq 0 ]; then set -- 1 2 4; fi
lab=$(mktemp -d /tmp/workers-demo.XXXXXX)
trap 'rm -rf "$lab"' EXIT
cd "$lab"
export HF_HUB_OFFLINE=1

# Two methods at sixteen sparsities, masked and CSR each: 64 cells. The dense model is not among them.
cat >sweep.toml <<TOML
name = "sweep"
[model]
source = "${MODEL:-synthetic:opt-125m}"
[device]
backend = "${BACKEND:-auto}"
[data]
context = ${CONTEXT:-512}
perplexity_windows = ${WINDOWS:-24}
calibration_samples = 32
calibration_length = ${CONTEXT:-512}
[[prune]]
method = ["wanda", "sparsegpt"]
sparsity = [0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48, 0.52, 0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8]
[execute]
variants = ["masked", "csr"]
[measure]
metrics = ["structure", "agreement", "perplexity"]
TOML

cat >timed.toml <<TOML
name = "timed"
[model]
source = "${MODEL:-synthetic:opt-125m}"
[device]
backend = "${BACKEND:-auto}"
[[prune]]
method = "magnitude"
sparsity = 0.5
[execute]
variants = ["dense", "masked", "csr"]
[measure]
metrics = ["latency"]
[[kernel]]
shape = [[768, 768], [3072, 768]]
sparsity = 0.5
tokens = 1
format = ["dense", "csr"]
TOML

echo "warming up"
"$program" run sweep.toml --results warm --only 'sparsity=0.2' >/dev/null 2>&1 || true

first=
for workers in "$@"; do
    start=$(date +%s.%N)
    if ! "$program" run sweep.toml -s "device.workers=$workers" --results "by-$workers" >/dev/null 2>"log-$workers"; then
        echo "$workers workers failed:"
        tail -n 5 "log-$workers"
        continue
    fi
    end=$(date +%s.%N)
    cells=$(find "by-$workers/sweep/cells" -name '*.json' | wc -l)
    echo "$workers $cells $start $end" | awk '{
        seconds = $4 - $3
        printf "%s workers: %d cells in %.1f s, %.1f cells a minute\n", $1, $2, seconds, $2 * 60 / seconds
    }'
    grep -A6 '"gpu"' "by-$workers"/sweep/runs/*.json | grep '"gpu"\|"cells"' | tr -d ' \n' || true
    echo
    if [ -n "$first" ]; then
        if cmp -s "by-$first/sweep/tables/summary.csv" "by-$workers/sweep/tables/summary.csv"; then
            echo "summary.csv is that of $first workers, byte for byte"
        else
            echo "summary.csv differs from that of $first workers:"
            diff "by-$first/sweep/tables/summary.csv" "by-$workers/sweep/tables/summary.csv" | head -n 4
        fi
    else
        first=$workers
    fi
    "$program" run timed.toml -s "device.workers=$workers" --results "timed-$workers" >/dev/null 2>"log-timed-$workers" ||
        tail -n 5 "log-timed-$workers"
    echo "decode, median ms:"
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
             $column["phase"] == "decode" { printf "  %s %s\n", $column["setup"], $column["median_ms"] }' \
        "timed-$workers/timed/tables/latency.csv"
done
