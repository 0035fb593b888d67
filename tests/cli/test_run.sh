#!/bin/sh
# test_run.sh - verbs run and plan on a tiny task: rows, limits, failures, signals, and everything they refuse.
. tests/cli/lib.sh
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"
tiny_model "$work/m.safetensors" || exit 1
db="$work/r.db"

# experiment FILE METHODS-AND-MORE: an experiment of this text
experiment() {
  printf 'name: tiny\ntask: lra/listops\nmodel: %s\nthreads: 2\nmeasure: {rounds: 2, warmup: 0, inputs: 3}\n%s\n' "$work/m.safetensors" "$2" >"$1"
}
ice() { run "$ICEBENCH_BIN" "$@" --db "$db"; }
rows() { sql "$db" "SELECT $1 FROM results $2"; }
# child PID: the cell that a run is busy with, once there is one
child() {
  while [ -e "/proc/$1/exe" ]; do
    pid=$(children "$1")
    [ -n "$pid" ] && break
    sleep 0.05
  done
  echo "$pid"
}

# kill_again PID: a second SIGINT, once the first has been heard
kill_again() {
  while ! grep -q 'finishing the cell' "$work/err" && [ -e "/proc/$1/exe" ]; do sleep 0.02; done
  kill -INT "$1"
}

# --- a whole experiment

experiment "$work/x.yaml" 'methods:
  - vanilla
  - dense
  - topk: {k: [4, 4096]}
seeds: [1, 2]'
ice plan "$work/x.yaml"
why=""
[ "$code" -eq 0 ] && grep -q '8 cells, 0 there, 8 to run' "$work/out" || why="before: $(cat "$work/out" "$work/err")"
[ ! -e "$db" ] || why="$why plan made a database"
ice run "$work/x.yaml"
[ "$code" -eq 0 ] || why="$why exit code $code: $(cat "$work/err")"
[ "$(rows 'count(*), count(DISTINCT method || params || seed)' "WHERE status = 'ok'")" = "8|8" ] || why="$why rows: $(rows '*')"
ice plan "$work/x.yaml"
grep -q '8 cells, 8 there, 0 to run' "$work/out" || why="$why after: $(cat "$work/out" "$work/err")"
verdict run__experiment__every_cell_becomes_a_row "$why"

# A sanitizer build stores no times, and says so in its label.
times="attention_ns > 0 AND model_ns > attention_ns AND build_ns + query_ns <= 2 * attention_ns AND speedup_vanilla > 0 AND speedup_dense > 0"
one="speedup_dense = 1 AND speedup_dense_lo = 1 AND speedup_dense_hi = 1"
label="generated data" timed=1
if rows label | grep -q 'no times'; then
  times="attention_ns IS NULL AND speedup_dense IS NULL" one="speedup_dense IS NULL" label=$(rows 'DISTINCT label')
  timed=0
fi
why=""
is_now=$(rows "DISTINCT experiment, task, examples, partial, heads, head_dim, layers, threads, label")
[ "$is_now" = "tiny|lra/listops|12|0|2|32|2|2|$label" ] || why="$is_now"
[ "$(rows 'count(*)' "WHERE $times AND pairs > 0 AND peak_bytes > 0 AND accuracy BETWEEN accuracy_lo AND accuracy_hi AND n > 0")" = 8 ] || why="$why some row is not whole"
[ "$(rows 'count(*)' "WHERE method = 'dense' AND $one AND rel_l2_error = 0 AND (retention = 1 OR accuracy = 0)")" = 2 ] || why="$why dense: $(rows 'speedup_dense, retention, rel_l2_error' "WHERE method = 'dense'")"
[ "$(rows 'count(*)' "WHERE method = 'vanilla' AND rel_l2_error < 1e-5 AND mass IS NULL AND recall IS NULL")" = 2 ] || why="$why vanilla"
[ "$(rows 'count(*)' "WHERE method = 'topk' AND recall = 1 AND mass > 0 AND mass <= 1")" = 4 ] || why="$why topk"
[ "$(rows 'count(*)' "WHERE params LIKE '%4096%' AND mass > 0.99999 AND rel_l2_error < 1e-5")" = 2 ] || why="$why topk with all keys"
verdict run__numbers__are_there_and_sane "$why"

same="SELECT count(*) FROM cell a JOIN prediction p ON p.cell_id = a.id, cell b JOIN prediction q ON q.cell_id = b.id WHERE a.method = 'dense' AND a.seed = b.seed AND p.data = q.data AND p.count = 12 AND (b.method = 'vanilla' OR b.params LIKE '%4096%')"
[ "$(sql "$db" "$same")" = 4 ] && why="" || why="$(sql "$db" "$same") of 4"
verdict run__all_keys__same_predictions_as_dense "$why"
why=""
if [ $timed = 1 ]; then
  [ "$(sql "$db" "SELECT count(*) FROM (SELECT cell_id, method, phase, count(*) AS n FROM sample GROUP BY 1, 2, 3) WHERE n <> 2")" = 0 ] || why="not two rounds"
  [ "$(sql "$db" "SELECT count(DISTINCT method) FROM sample WHERE cell_id IN (SELECT id FROM cell WHERE method = 'topk')")" = 3 ] || why="$why a baseline is missing"
fi
verdict run__every_round__is_stored_for_all_three "$why"

before=$(sql "$db" "SELECT group_concat(id || attempt || wall_ms) FROM cell")
ice run "$work/x.yaml"
why=""
[ "$code" -eq 0 ] && grep -q '8 there before' "$work/out" || why="$(cat "$work/out" "$work/err")"
[ "$(sql "$db" "SELECT group_concat(id || attempt || wall_ms) FROM cell")" = "$before" ] || why="$why rows changed"
verdict run__again__changes_nothing "$why"
ice run "$work/x.yaml" --force --filter 'method=topk,k=4|5,seed=1'
why=""
[ "$code" -eq 0 ] && grep -q '1 cell, 1 run' "$work/out" || why="$(cat "$work/out" "$work/err")"
[ "$(sql "$db" "SELECT max(attempt), count(*) FROM cell")" = "2|8" ] || why="$why $(sql "$db" "SELECT attempt FROM cell")"
verdict run__force_and_filter__repeats_what_was_chosen "$why"

ice run "$work/x.yaml" --limit 5 --filter method=dense,seed=1
why=""
[ "$(rows 'examples, partial' 'WHERE partial = 1')" = "5|1" ] || why="$(rows 'examples, partial' 'WHERE partial = 1')"
ice run "$work/x.yaml" --set examples=5 --filter method=dense,seed=1
[ "$(rows 'partial, count(*)' 'WHERE examples = 5 GROUP BY 1 ORDER BY 1' | tr '\n' ' ')" = "0|1 1|1 " ] || why="$why a partial row stood in for a whole one"
ice run "$work/x.yaml" --limit 12 --filter method=dense,seed=1
grep -q '1 there before' "$work/out" || why="$why a limit that limits nothing is not partial"
verdict run__limit__marks_rows_partial "$why"
ice run "$work/x.yaml" --threads 1 --filter method=dense,seed=1
[ "$(rows 'count(*)' 'WHERE threads = 1')" = 1 ] && why="" || why="$(cat "$work/out" "$work/err")"
verdict run__threads__are_part_of_the_identity "$why"
ice run "$work/x.yaml" --set 'topk.k=5' --max-hours 0.000001
[ "$code" -eq 0 ] && grep -q ' [1-9] left' "$work/out" && why="" || why="$code $(cat "$work/out" "$work/err")"
verdict run__max_hours__leaves_cells_for_later "$why"

# --- cells that fail

long='measure: {rounds: 1000, warmup: 0, inputs: 12, max_seconds: 100000}'
db="$work/f.db"
experiment "$work/y.yaml" 'methods: [dense, vanilla]
limits: {seconds: 1}'
sed -i "s/^measure:.*/$long/" "$work/y.yaml"
ice run "$work/y.yaml" --filter method=vanilla
why=""
[ "$code" -eq 3 ] && grep -q 'icebench: 1 of 1 cell failed, the first: vanilla: timeout: killed after 1 s' "$work/err" || why="$code $(cat "$work/out" "$work/err")"
[ "$(rows 'method, status')" = "vanilla|timeout" ] || why="$why $(rows 'method, status, reason')"
verdict limits__seconds__is_a_timeout "$why"
ice run "$work/y.yaml" --filter method=vanilla
why=""
[ "$code" -eq 3 ] && grep -q '1 there before (1 failed)' "$work/out" || why="a failed row was run again, or forgotten: $code $(cat "$work/out")"
grep -qx 'icebench: 1 of 1 cell failed before; --retry-failed runs it again' "$work/err" || why="$why $(cat "$work/err")"
ice run "$work/y.yaml" --filter method=vanilla --retry-failed --set limits.seconds=10000 --set measure.max_seconds=0.1
[ "$code" -eq 0 ] && [ "$(rows 'status, attempt')" = "ok|2" ] || why="$why $code $(rows 'status, reason, attempt') $(cat "$work/err")"
ice run "$work/y.yaml" --filter method=vanilla # all is well now
[ "$code" -eq 0 ] && grep -q '1 there before (0 failed)' "$work/out" || why="$why $code $(cat "$work/out" "$work/err")"
verdict run__retry_failed__repeats_it "$why"
# The budget ended the rounds early: the row says after how many.
done=$(sql "$db" "SELECT CAST(value AS INTEGER) FROM metric JOIN cell ON cell.id = cell_id WHERE name = 'rounds'")
[ "$done" -lt 1000 ] && rows label | grep -qF ", $done of 1000 rounds" && why="" || why="$done rounds, label $(rows label)"
"$ICEBENCH_BIN" report --db "$db" | grep -qF "$done of 1000 rounds" || why="$why not in the report"
verdict run__max_seconds__row_says_how_many_rounds "$why"

db="$work/m.db"
experiment "$work/z.yaml" 'methods: [dense]
limits: {memory_gib: 0.01}'
ice run "$work/z.yaml" --threads 64 # each has a packed copy of the weights
[ "$code" -eq 3 ] && [ "$(rows "status || (reason LIKE '%limit is 0.01 GiB%')")" = oom1 ] && why="" || why="$code $(rows 'status, reason') $(cat "$work/err")"
verdict limits__memory__is_oom "$why"

db="$work/k.db"
sed 's/seconds: 1}/seconds: 10000}/' "$work/y.yaml" >"$work/k.yaml"
"$ICEBENCH_BIN" run "$work/k.yaml" --db "$db" --on-error stop >"$work/out" 2>"$work/err" &
parent=$!
cell=$(child $parent)
kill -SYS "$cell" # as a crash; sanitizers keep SEGV for themselves
wait $parent
code=$?
why=""
[ $code -eq 3 ] && [ "$(rows 'status, reason')" = "failed|killed by SIGSYS" ] || why="$code $(rows 'status, reason') $(cat "$work/err")"
grep -q ' 1 left' "$work/out" || why="$why $(cat "$work/out")"
verdict cell__crashes__is_a_row_and_stops_on_demand "$why"

# A cell of two processes, of which the second crashes: the cell has failed, and nothing of the first is kept as if it were whole.
db="$work/two.db"
printf 'name: two\ntask: synth/gauss\nshape: {n: 1024, d: 64}\nmethods: [dense]\nmeasure: {rounds: 1000, processes: 2, max_seconds: 4, quality: false}\n' >"$work/two.yaml"
"$ICEBENCH_BIN" run "$work/two.yaml" --db "$db" >"$work/out" 2>"$work/err" &
parent=$!
first=$(child $parent)
second=$first
while [ -e "/proc/$parent/exe" ] && { [ -z "$second" ] || [ "$second" = "$first" ]; }; do
  sleep 0.02
  second=$(children $parent)
done
kill -SYS "$second"
wait $parent
code=$?
why=""
[ $code -eq 3 ] && [ "$(rows 'status, reason')" = "failed|killed by SIGSYS" ] || why="$code $(rows 'status, reason') $(cat "$work/err")"
[ "$(sql "$db" "SELECT count(*) FROM sample")" = 0 ] || why="$why samples were kept"
verdict cell__second_process_crashes__cell_has_failed "$why"

for signal in INT TERM; do
  db="$work/$signal.db"
  # a shell without job control ignores INT in its background jobs, and its children inherit that
  env --default-signal=INT "$ICEBENCH_BIN" run "$work/k.yaml" --db "$db" >"$work/out" 2>"$work/err" &
  parent=$!
  cell=$(child $parent)
  kill -$signal $parent
  [ $signal = TERM ] || kill_again $parent # the first one would let the cell finish
  wait $parent
  code=$?
  why=""
  [ $code -eq $([ $signal = INT ] && echo 130 || echo 143) ] || why="exit code $code"
  [ $signal = TERM ] || grep -q 'finishing the cell at work' "$work/err" || why="$why no word of finishing"
  grep -q 'icebench: interrupted; 0 cells are stored, run the same command to go on' "$work/err" || why="$why $(cat "$work/err")"
  [ "$(rows 'count(*)')" = 0 ] || why="$why $(rows 'status, reason')"
  [ ! -e "/proc/$cell" ] || why="$why the child $cell lives on"
  verdict "run__signal_${signal}__ends_cleanly" "$why"
done

# One SIGINT: the cell at work is finished and stored, no other is begun.
db="$work/once.db"
sed 's/rounds: 1000/rounds: 3/' "$work/k.yaml" >"$work/once.yaml"
env --default-signal=INT "$ICEBENCH_BIN" run "$work/once.yaml" --db "$db" >"$work/out" 2>"$work/err" &
parent=$!
cell=$(child $parent)
kill -INT $parent
wait $parent
code=$?
why=""
[ $code -eq 130 ] || why="exit code $code"
[ "$(rows 'method, status')" = "dense|ok" ] || why="$why rows: $(rows 'method, status, reason')"
grep -q 'icebench: interrupted; 1 cell is stored' "$work/err" && grep -q ' 1 left' "$work/out" || why="$why $(cat "$work/out" "$work/err")"
verdict run__one_sigint__finishes_the_cell "$why"

# A sentinel that may not move by a nanosecond: the cell is measured anew once, then a row that says why, to be run again by the next
# command. Two equal readings are possible, so there are some tries.
printf 'name: noisy\ntask: synth/gauss\nshape: {n: 64, d: 16}\nthreads: 1\nmethods: [dense]\nmeasure: {rounds: 2, quality: false, noise: 1e-9, retries: 1}\n' >"$work/noisy.yaml"
for try in 1 2 3 4 5; do
  db="$work/noisy$try.db"
  ice run "$work/noisy.yaml"
  why=""
  [ "$code" -eq 3 ] && grep -q '^dense: noise, once more: the sentinel took' "$work/out" || why="exit code $code: $(cat "$work/out")"
  [ "$(rows "status || ' ' || (reason LIKE 'the sentinel took%')")" = "invalid-noise 1" ] || why="$why rows: $(rows 'status, reason')"
  ice run "$work/noisy.yaml"
  grep -q ' 1 run' "$work/out" || why="$why not run again: $(cat "$work/out")"
  [ -n "$why" ] || break
done
verdict run__noise__measured_anew_then_a_row_that_says_so "$why"

# --- presets, order, shards

db="$work/p.db"
experiment "$work/p.yaml" 'methods:
  - topk: {k: {from: 2, to: 16, mult: 2}}
shuffle: 5'
ice run "$work/p.yaml" --preset smoke
why=""
[ "$code" -eq 0 ] && [ "$(rows 'DISTINCT experiment')" = tiny-smoke ] || why="$code $(cat "$work/err") $(rows experiment)"
order=$(sql "$db" "SELECT group_concat(json_extract(params, '$.k')) FROM (SELECT params FROM cell ORDER BY id)")
case $order in 2,4,8,16) why="$why in the order of the file" ;; *8*) ;; *) why="$why rows of k $order" ;; esac
run "$ICEBENCH_BIN" run "$work/p.yaml" --preset smoke --db "$work/p2.db"
[ "$(sql "$work/p2.db" "SELECT group_concat(json_extract(params, '$.k')) FROM (SELECT params FROM cell ORDER BY id)")" = "$order" ] || why="$why not the same order again"
try=$(complains 2 "preset = smoek, allowed smoke, full" run "$work/p.yaml" --preset smoek --db "$db")
verdict run__preset_and_shuffle__rows_of_their_own_in_a_seeded_order "$why$try"

db="$work/one.db"
ice run "$work/p.yaml"
why=""
run "$ICEBENCH_BIN" shard "$work/p.yaml" -n 3 --out "$work/shards" --db "$work/all.db"
[ "$code" -eq 0 ] || why="shard: $code $(cat "$work/err")"
[ "$(cat "$work"/shards/*.cells | wc -l)" = 4 ] && [ "$(cat "$work"/shards/*.cells | sort -u | wc -l)" = 4 ] && [ "$(ls "$work"/shards/*.cells | wc -l)" = 3 ] || why="$why $(cat "$work"/shards/*.cells)"
for i in 1 2 3; do
  run "$ICEBENCH_BIN" run "$work/p.yaml" --cells "$work/shards/$i.cells" --db "$work/shards/$i.db" -q
  [ "$code" -eq 0 ] || why="$why run $i: $code $(cat "$work/err")"
done
run "$ICEBENCH_BIN" merge "$work/all.db" "$work"/shards/*.db
[ "$code" -eq 0 ] || why="$why merge: $code $(cat "$work/err")"
facts="SELECT experiment, task, model, method, params, seed, n, examples, accuracy, retention, l2_error, mass, recall, pairs, status, data_hash, model_hash FROM results ORDER BY params"
[ "$(sql "$work/all.db" "$facts")" = "$(sql "$db" "$facts")" ] || why="$why $(sql "$work/all.db" "$facts")"
run "$ICEBENCH_BIN" plan "$work/p.yaml" --db "$work/all.db"
grep -q '4 there, 0 to run' "$work/out" || why="$why $(cat "$work/out")"
verdict shard__run_apart_and_merged__equals_one_run "$why"

why="$(complains 2 'no cell of' run "$work/x.yaml" --cells "$work/shards/1.cells" --db "$work/none.db")"
why="$why$(complains 2 '--cells '"$work/shards/none.cells: cannot be opened" run "$work/p.yaml" --cells "$work/shards/none.cells" --db "$work/none.db")"
why="$why$(complains 2 'allowed 1..4' shard "$work/p.yaml" -n 5 --out "$work/shards5" --db "$work/none.db")"
why="$why$(complains 2 'holds shards already' shard "$work/p.yaml" -n 2 --out "$work/shards" --db "$work/none.db")"
why="$why$(complains 2 'nothing is left to run' shard "$work/p.yaml" -n 1 --out "$work/shards6" --db "$work/all.db")"
why="$why$(complains 2 'needs' shard "$work/p.yaml" --out "$work/shards7")"
verdict shard__bad_input__refused "$why"

why="$(complains 6 'merge-base:nope' compare merge-base:nope HEAD --db "$db")"
[ "$(wc -l <"$work/err")" -eq 1 ] || why="$why $(cat "$work/err")"
if [ -e /dev/full ]; then
  "$ICEBENCH_BIN" compare "$db" "$db" --format json >/dev/full 2>"$work/err"
  grep -q 'cannot be written: No space left' "$work/err" || why="$why full: $(cat "$work/err")"
fi
verdict compare__git_and_full_disk__one_line "$why"

# The script that sbatch would start, task by task, in a folder that a shell has to quote.
mkdir "$work/it's here"
cp "$work/p.yaml" "$work/it's here/p.yaml"
why="$(complains 2 'sbatch' shard "$work/it's here/p.yaml" -n 2 --slurm --out "$work/it's here/s" --db "$work/slurm.db")"
run "$ICEBENCH_BIN" shard "$work/it's here/p.yaml" -n 2 --slurm --out "$work/slurm" --db "$work/slurm.db" --set 'topk.k=2|4' --preset smoke
[ "$code" -eq 0 ] || why="$why shard: $code $(cat "$work/err")"
sh -n "$work/slurm/job.sh" && sh -n "$work/slurm/merge.sh" && sh -n "$work/slurm/submit.sh" || why="$why not shell"
grep -q '^#SBATCH --array=1-2$' "$work/slurm/job.sh" || why="$why $(cat "$work/slurm/job.sh")"
for i in 1 2; do SLURM_ARRAY_TASK_ID=$i sh "$work/slurm/job.sh" >"$work/out" 2>"$work/err" || why="$why job $i: $(cat "$work/err")"; done
sh "$work/slurm/merge.sh" >"$work/out" 2>"$work/err" || why="$why merge: $(cat "$work/err")"
[ "$(sql "$work/slurm.db" "SELECT experiment, count(*) FROM cell WHERE status = 'ok' GROUP BY 1")" = "tiny-smoke|2" ] || why="$why $(sql "$work/slurm.db" "SELECT experiment, params, status, reason FROM cell")"
verdict shard__slurm_scripts__work_as_they_stand "$why"

# --- refusals

why=""
try() { why="$why$(complains "$@")"; }
for verb in run plan; do
  try 2 "needs one file" $verb
  try 2 "unexpected argument" $verb "$work/x.yaml" "$work/y.yaml"
  try 2 "none.yaml" $verb "$work/none.yaml"
  try 2 "--limit = 0, allowed 1.." $verb "$work/x.yaml" --limit 0
  try 2 "--threads = 257, allowed 1..256" $verb "$work/x.yaml" --threads 257
  try 2 "'method' is no KEY=VALUE" $verb "$work/x.yaml" --filter method
  try 2 "unknown key 'mthod'" $verb "$work/x.yaml" --filter mthod=dense
  try 2 "no cell of" $verb "$work/x.yaml" --filter method=dense,seed=3
  try 2 "no cell of" $verb "$work/x.yaml" --filter k=x
  try 2 "is no KEY=VALUE" $verb "$work/x.yaml" --filter ""
  try 2 "topk.k = 0, allowed whole numbers" $verb "$work/x.yaml" --set topk.k=0
done
try 2 "--on-error = maybe, allowed continue, stop" run "$work/x.yaml" --on-error maybe
try 2 "--max-hours = -1" run "$work/x.yaml" --max-hours -1
try 2 "--format = xml" plan "$work/x.yaml" --format xml
try 2 "no arguments" __cell surplus
verdict options__hostile_values__one_line_and_exit_code_2 "$why"

why=""
echo '{"task": 3}' | "$ICEBENCH_BIN" __cell >"$work/out" 2>"$work/err" && why="a job that is none was taken"
grep -q '^icebench: cell: job: ' "$work/err" || why="$why $(cat "$work/err")"
head -c 100000 /dev/zero | tr '\0' '[' | "$ICEBENCH_BIN" __cell >"$work/out" 2>"$work/err" && why="$why a long job was taken"
verdict cell__hostile_job__is_refused "$why"

why=""
tree=$PWD
cd "$work" # datasets/data of the tree may hold the task
ICEBENCH_DATA_DIR="$work/empty" run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/none.db"
[ "$code" -eq 7 ] && grep -q 'icebench data make lra/listops' "$work/err" || why="data: $code $(cat "$work/err")"
cd "$tree"
sed 's/m\.safetensors/none.safetensors/' "$work/x.yaml" >"$work/w.yaml"
try 7 "none.safetensors: no such file" run "$work/w.yaml" --db "$work/none.db"
sed 's/^model:.*/model: lra\/listops\/nobody/' "$work/x.yaml" >"$work/w.yaml"
try 7 "train it with \`icebench train" run "$work/w.yaml" --db "$work/none.db"
head -c 1000 "$work/m.safetensors" >"$work/half.safetensors"
sed 's/m\.safetensors/half.safetensors/' "$work/x.yaml" >"$work/w.yaml"
try 7 "half.safetensors" run "$work/w.yaml" --db "$work/none.db"
[ ! -e "$work/none.db" ] || why="$why a database was made"
verdict inputs__missing_or_damaged__exit_code_7_and_nothing_stored "$why"

why=""
echo "no database" >"$work/text.db"
try 8 "text.db" run "$work/x.yaml" --db "$work/text.db"
try 8 "text.db" plan "$work/x.yaml" --db "$work/text.db"
[ "$(cat "$work/text.db")" = "no database" ] || why="$why the file was touched"
verdict database__is_none__exit_code_8 "$why"

exit $failed
