#!/bin/sh
# test_slurm.sh - `shard --slurm` on a real Slurm of one node, started here on the loopback and stopped again: the merged
# database says what a run on this machine alone says, but for times. Needs root and the packages slurm-wlm and munge.
. tests/cli/lib.sh
name=shard_slurm__array_and_dependent_merge__equals_one_run
for program in munged slurmctld slurmd sbatch squeue; do
  command -v $program >/dev/null || { skipped $name "$program is not installed (apt-get install slurm-wlm munge)"; exit 0; }
done
[ "$(id -u)" -eq 0 ] || { skipped $name "Slurm's daemons want root"; exit 0; }

chmod 755 "$work"
mkdir "$work/state" "$work/spool" "$work/log"
dd if=/dev/urandom of="$work/munge.key" bs=128 count=1 2>/dev/null
chmod 400 "$work/munge.key"
port=$((20000 + $$ % 20000))
cat >"$work/slurm.conf" <<C
ClusterName=icebench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/slurmd
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
MailProg=/bin/true
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
C
export SLURM_CONF="$work/slurm.conf"
daemons=""
stop() {
  for pid in $daemons; do kill "$pid" 2>/dev/null; done
  for pid in $daemons; do wait "$pid" 2>/dev/null; done
}
trap 'stop; rm -rf "$work"' EXIT
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" --log-file="$work/log/munged" \
  --seed-file="$work/munge.seed" >"$work/log/munged.out" 2>&1 &
daemons="$!"
slurmctld -D >"$work/log/ctld.out" 2>&1 &
daemons="$! $daemons"
slurmd -D -N localhost >"$work/log/d.out" 2>&1 &
daemons="$! $daemons"
for _ in $(seq 150); do
  sinfo -h -o %t 2>/dev/null | grep -q idle && break
  sleep 0.2
done
if ! sinfo -h -o %t 2>/dev/null | grep -q idle; then
  skipped $name "Slurm does not start here: $(cat "$work"/log/* 2>/dev/null | grep -i 'fatal\|error' | head -n 1 | cut -c 1-200)"
  exit 0
fi

tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"
tiny_model "$work/m.safetensors" || exit 1
printf 'name: tiny\ntask: lra/listops\nmodel: %s\nthreads: 1\nexamples: 6\nmeasure: {rounds: 1, warmup: 0, inputs: 2}\nlimits: {memory_gib: 1}\nseeds: [1, 2]\nmethods:\n  - dense\n  - topk: {k: {from: 2, to: 8, mult: 2}}\n' "$work/m.safetensors" >"$work/x.yaml"
why=""
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/one.db"
[ "$code" -eq 0 ] || why="alone: $code $(cat "$work/err")"
run "$ICEBENCH_BIN" shard "$work/x.yaml" -n 3 --slurm --out "$work/shards" --db "$work/all.db"
[ "$code" -eq 0 ] || why="$why shard: $code $(cat "$work/err")"
run sh "$work/shards/submit.sh"
[ "$code" -eq 0 ] || why="$why submit: $code $(cat "$work/err")"
for _ in $(seq 300); do
  [ -n "$(squeue -h 2>/dev/null)" ] || break
  sleep 0.2
done
[ -z "$(squeue -h)" ] || why="$why still there: $(squeue)"
facts="SELECT experiment, task, model, method, params, seed, n, threads, isa, examples, partial, accuracy, retention, l2_error, rel_l2_error, mass, recall, pairs, peak_bytes, status, label, git_commit, machine, data_hash, model_hash FROM results ORDER BY method, params, seed"
[ "$(sql "$work/one.db" "SELECT count(*) FROM cell WHERE status = 'ok'")" = 8 ] || why="$why $(sql "$work/one.db" "SELECT status, reason FROM cell")"
[ -e "$work/all.db" ] && [ "$(sql "$work/all.db" "$facts")" = "$(sql "$work/one.db" "$facts")" ] ||
  why="$why merged: $(cat "$work"/shards/*.log | tail -n 5) $(sql "$work/all.db" "$facts" 2>&1 | head -n 3)"
[ "$(ls "$work"/shards/*.db | wc -l)" -eq 3 ] || why="$why databases: $(ls "$work/shards")"
verdict $name "$why"
exit $failed
