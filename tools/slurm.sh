#!/bin/sh
# A throw-away Slurm on this machine, for the tests: its own munged, slurmctld and slurmd (several "nodes" on
# one host), all files in one folder, nothing outside it touched. From Debian's slurm-wlm and munge.
#
#   slurm.sh install             makes sure that the programs are here; installs Debian's as root
#   slurm.sh start DIR [NODES]   starts it; then SLURM_CONF=DIR/slurm.conf makes sbatch, squeue, … use it
#   slurm.sh node DIR NAME       starts one node's slurmd again (node0, node1, …)
#   slurm.sh stop DIR            ends its daemons and whatever they run
set -eu
PATH="$PATH:/usr/sbin:/sbin"
export LC_ALL=C

complete() {
    for name in slurmctld slurmd sbatch squeue scontrol munged ps pgrep; do
        command -v "$name" > /dev/null || return 1
    done
}

install() {
    if complete; then return 0; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
        echo "installing slurm-wlm and munge for the tests of the Slurm engine"
        # A source that cannot be reached must not keep the others from being used.
        apt-get update -qq || true
        # The daemons are for the tests to start, not for the machine to run.
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
            --no-install-recommends slurm-wlm munge procps > /dev/null || true
        if complete; then return 0; fi
    fi
    echo "WARNING: no Slurm here, so the tests of the Slurm engine are SKIPPED: install slurm-wlm, munge, procps" >&2
}

free_ports() {
    "${PYTHON:-python3}" -c '
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))' "$1"
}

configure() {
    dir=$1 nodes=$2
    # shellcheck disable=SC2046
    set -- $(free_ports $((nodes + 1)))
    cat > "$dir/slurm.conf" << CONF
ClusterName=throwaway
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$1
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000,batch_sched_delay=0
SlurmctldParameters=idle_on_node_suspend
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=30
InactiveLimit=0
CONF
    shift
    number=0
    for port in "$@"; do
        echo "NodeName=node$number NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$port CPUs=2 State=UNKNOWN"
        number=$((number + 1))
    done >> "$dir/slurm.conf"
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >> "$dir/slurm.conf"
}

node() { SLURM_CONF="$1/slurm.conf" slurmd -f "$1/slurm.conf" -N "$2"; }

start() {
    nodes=${2:-2}
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    chmod 755 "$dir"
    mkdir -p "$dir/state"
    configure "$dir" "$nodes"
    head -c 1024 /dev/urandom > "$dir/munge.key"
    chmod 600 "$dir/munge.key"
    munged --force --num-threads=2 --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munged.seed"
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld -f "$SLURM_CONF"
    number=0
    while [ "$number" -lt "$nodes" ]; do
        node "$dir" "node$number"
        number=$((number + 1))
    done
    tries=0
    until [ "$(sinfo -h -N -o %T 2> /dev/null | grep -c idle)" = "$nodes" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 150 ]; then
            echo "Slurm did not start; its logs are in $dir:" >&2
            tail -n 5 "$dir"/*.log >&2
            stop "$dir"
            exit 1
        fi
        sleep 0.2
    done
}

stop() {
    dir=$(cd "$1" && pwd)
    export SLURM_CONF="$dir/slurm.conf"
    if [ -f "$SLURM_CONF" ]; then
        timeout 10 scancel --signal=KILL --full --partition=test 2> /dev/null || true
        timeout 10 scancel --partition=test 2> /dev/null || true
    fi
    # slurmstepd has no pid file; its command line names the node, its environment the folder.
    for step in $(pgrep -x slurmstepd || true); do
        if { tr '\0' '\n' < "/proc/$step/environ"; } 2> /dev/null | grep -qx "SLURM_CONF=$SLURM_CONF"; then
            pkill -KILL -P "$step" 2> /dev/null || true
            kill -KILL "$step" 2> /dev/null || true
        fi
    done
    for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
        if [ -f "$file" ]; then kill -KILL "$(cat "$file")" 2> /dev/null || true; fi
        rm -f "$file"
    done
}

case "${1:-}" in
    install) install ;;
    start) start "$2" "${3:-2}" ;;
    node) node "$(cd "$2" && pwd)" "$3" ;;
    stop) stop "$2" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
