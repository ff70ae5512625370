#!/bin/sh
# A throw-away SLURM on this machine: no systemd, no accounting, pretended GPUs, pretended nodes.
#   cluster.sh up FOLDER [GPUS [NODES]]   start munged, slurmctld and a slurmd for each node; wait
#   cluster.sh down FOLDER                stop what `up` started
# Needs root and Debian's slurm-wlm and munge. Everything lies in FOLDER, except two links in
# /etc/slurm: Snakemake's plugin drops SLURM_CONF before srun, which then looks there.
set -eu

verb=$1
folder=$(realpath -m "$2")
gpus=${3:-4}
host=$(hostname -s)
nodes=$host # only the first one's name can be looked up
for number in $(seq 2 "${4:-1}"); do nodes="$nodes $host-$number"; done
port=$((20000 + $$ % 20000))

settings() {
    cat <<END
ClusterName=throwaway
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
# no cgroups, no accounting daemon, no MPI
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
# cores and GPUs are handed out one by one; more cores and memory are promised than there are
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
# finished jobs stay visible to squeue, since there is no accounting to ask; quick scheduling
MinJobAge=900
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5
KillWait=5
ReturnToService=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    for node in $nodes; do
        port=$((port + 1))
        echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=128" \
            "RealMemory=512000 Gres=gpu:$gpus"
    done
}

up() {
    mkdir -p "$folder/state" "$folder/devices" /etc/slurm
    chmod 755 "$folder"
    for file in slurm.conf gres.conf; do
        if [ -e "/etc/slurm/$file" ]; then
            echo "/etc/slurm/$file exists: this machine has a SLURM of its own" >&2
            exit 3
        fi
    done
    number=0
    while [ $number -lt "$gpus" ]; do # a GPU is a device file; these are clones of /dev/null
        mknod -m 666 "$folder/devices/gpu$number" c 1 3
        number=$((number + 1))
    done
    settings >"$folder/slurm.conf"
    for node in $nodes; do
        echo "NodeName=$node Name=gpu File=$folder/devices/gpu[0-$((gpus - 1))]"
    done >"$folder/gres.conf"
    ln -sf "$folder/slurm.conf" "$folder/gres.conf" /etc/slurm/

    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --force --num-threads=2 --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
        --seed-file="$folder/munge.seed"
    slurmctld -i -c
    for node in $nodes; do
        mkdir -p "$folder/spool-$node"
        slurmd -N "$node"
    done
    tries=0
    until [ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ]; do # all of them
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            tail -n 20 "$folder"/*.log >&2
            exit 1
        fi
        sleep 0.2
    done
}

down() {
    export SLURM_CONF="$folder/slurm.conf"
    if scancel --partition=main 2>/dev/null; then # KillWait seconds for those that do not listen
        for _ in $(seq 100); do
            [ -n "$(squeue --noheader 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    for file in "$folder/$host"*.pid "$folder/slurmctld.pid" "$folder/munged.pid"; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
    for file in slurm.conf gres.conf; do
        if [ "$(readlink "/etc/slurm/$file")" = "$folder/$file" ]; then
            rm "/etc/slurm/$file"
        fi
    done
}

"$verb"
