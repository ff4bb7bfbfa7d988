#!/bin/bash
# A cluster of one machine, made to see `sparsify-exp slurm` work on the real Slurm: munge, slurmctld and slurmd of Debian
# (or Ubuntu), configured, run and stopped here, in a folder of its own. Needs root; installs the packages if they are
# missing, and touches none of the system's own settings of Slurm.
#
#   scripts/slurm-demo.sh [PROGRAM]      default: target/release/sparsify-exp
#
# It submits a sweep in three tasks that stop after a quarter of a minute and are requeued while they have cells left, kills
# the program of one with SIGKILL while it measures, and checks that the report is that of a run without Slurm.
set -euo pipefail

program=$(realpath "${1:-target/release/sparsify-exp}")
lab=$(mktemp -d /tmp/slurm-demo.XXXXXX)
slurm=$lab/slurm
export SLURM_CONF=$slurm/slurm.conf
daemons=()

say() { printf '\n== %s\n' "$*"; }

stop() {
    status=$?
    for daemon in "${daemons[@]}"; do
        kill "$daemon" 2>/dev/null || true
    done
    sleep 1
    for daemon in "${daemons[@]}"; do
        kill -9 "$daemon" 2>/dev/null || true
    done
    if [ "$status" -eq 0 ]; then
        rm -rf "$lab"
    else
        echo "failed: what is left is in $lab" >&2
    fi
}
trap stop EXIT

wait_for() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "$what did not happen" >&2
            tail -n 20 "$slurm"/*.log >&2 || true
            exit 1
        fi
        sleep 0.2
    done
}

install() {
    if command -v slurmctld slurmd munged sbatch >/dev/null; then return; fi
    say "installing slurmctld, slurmd and munge"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge
}

# Keys, sockets, states and logs lie below $slurm; the ports are not the usual ones.
configure() {
    mkdir -p "$slurm"/{state,spool,munge}
    chmod 755 "$lab" "$slurm"
    chmod 700 "$slurm/munge"
    dd if=/dev/urandom of="$slurm/munge/key" bs=1024 count=1 status=none
    chmod 400 "$slurm/munge/key"
    cat >"$SLURM_CONF" <<CONF
ClusterName=demo
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=36817
SlurmdPort=36818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=600
KillWait=2
InactiveLimit=0
ReturnToService=2
MpiDefault=none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
}

start() {
    munged --force --foreground --key-file="$slurm/munge/key" --socket="$slurm/munge/socket" \
        --pid-file="$slurm/munge/pid" --seed-file="$slurm/munge/seed" --log-file="$slurm/munge.log" >/dev/null 2>&1 &
    daemons+=($!)
    wait_for 10 "munge's socket" test -S "$slurm/munge/socket"
    slurmctld -D -f "$SLURM_CONF" >"$slurm/slurmctld.out" 2>&1 &
    daemons+=($!)
    slurmd -D -f "$SLURM_CONF" >"$slurm/slurmd.out" 2>&1 &
    daemons+=($!)
    wait_for 60 "a node that is idle" sh -c 'sinfo --noheader --format=%T | grep -q idle'
}

write_experiment() {
    cat >"$lab/e.toml" <<'TOML'
name = "sweep"

[model]
source = "builtin:tiny-opt"

[device]
backend = "flex"
threads = 1

[data]
context = 64
perplexity_windows = 12

[measure]
metrics = ["structure", "agreement", "perplexity"]

[[prune]]
method = "magnitude"
sparsity = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]

[[prune]]
method = "wanda"
sparsity = [0.3, 0.5]

[execute]
variants = ["dense", "masked", "csr"]
TOML
}

cells() { find "$1/sweep/cells" -name '*.json' 2>/dev/null | wc -l; }

# Whether task N has stored its first cell: its log says so.
has_begun() { grep -q '^\[' "$lab"/slurm-sweep-*_"$1".out; }

demonstrate() {
    cd "$lab"
    say "the script"
    "$program" slurm e.toml --tasks 3 -- --time=1 --ntasks=1 >sweep.sh
    cat sweep.sh
    # Three quarters of the minute are kept for the last cell instead of a tenth, so that the time is over soon.
    sed -i 's|(end - now) / 10|(end - now) * 3 / 4|' sweep.sh

    say "submitted"
    sh sweep.sh
    squeue

    wait_for 120 "a cell of task 2" has_begun 2
    say "task 2 is killed with SIGKILL while it measures"
    victim=$(pgrep -f "$program run e.toml --partition slice:2/3" | head -n 1)
    kill -9 "$victim"
    echo "killed process $victim; $(cells results) cells are there"
    sleep 3
    squeue

    wait_for 900 "the end of all jobs" sh -c '[ -z "$(squeue --noheader)" ]'
    say "the logs"
    for log in slurm-sweep-*.out; do
        echo "-- $log"
        grep -v '^\[' "$log" | grep 'time is over\|requeued\|Killed\|measured,\|error' || true
    done
    grep -q 'requeued' slurm-sweep-*_2.out
    say "what the report says"
    tail -n 6 slurm-sweep-*_0.out
}

compare() {
    say "the same sweep without Slurm, in one process"
    "$program" run e.toml --results alone 2>&1 >/dev/null | tail -n 1
    echo "cells: $(cells results) by Slurm, $(cells alone) alone"
    diff <(ls results/sweep/cells) <(ls alone/sweep/cells)
    for table in summary layers groups; do
        cmp "results/sweep/tables/$table.csv" "alone/sweep/tables/$table.csv"
    done
    echo "the cells have the same names, and summary, layers and groups are equal byte for byte"
}

install
configure
start
say "Slurm $(sinfo --version | cut -d' ' -f2)"
sinfo
write_experiment
demonstrate
compare
say "done"
