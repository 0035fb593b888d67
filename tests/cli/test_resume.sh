#!/bin/sh
# test_resume.sh - `run` killed with SIGKILL at random moments, again and again: at the end no cell is there twice, none is
# missing, and the database is whole.
. tests/cli/lib.sh
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"
tiny_model "$work/m.safetensors" || exit 1
db="$work/r.db"
printf 'name: tiny\ntask: lra/listops\nmodel: %s\nthreads: 1\nexamples: 4\nmeasure: {rounds: 1, warmup: 0, inputs: 1}\nseeds: [1, 2, 3]\nmethods:\n  - dense\n  - topk: {k: [2, 3, 4]}\n' "$work/m.safetensors" >"$work/x.yaml"

seed=${SEED:-$$}
echo "SEED=$seed repeats these moments" >"$work/moments"
awk -v seed="$seed" 'BEGIN { srand(seed); for (i = 0; i < 8; i++) printf "%.3f\n", 0.4 * rand() }' >>"$work/moments"
orphans="" kills=0 cells=0 turn=0
for moment in $(tail -n +2 "$work/moments"); do
  "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" -q >>"$work/log" 2>&1 &
  parent=$!
  # every second time as soon as a cell is at work, however fast or slow the machine is
  if [ $((turn % 2)) -eq 0 ]; then
    while [ -e "/proc/$parent/exe" ] && [ -z "$(children $parent)" ]; do :; done
  else
    sleep "$moment"
  fi
  turn=$((turn + 1))
  cell=$(children $parent)
  kill -KILL $parent 2>/dev/null && kills=$((kills + 1))
  wait $parent 2>/dev/null
  if [ -n "$cell" ]; then
    cells=$((cells + 1))
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ ! -e "/proc/$cell/exe" ] || sleep 0.1; done
    [ ! -e "/proc/$cell/exe" ] || orphans="$orphans $cell"
  fi
done
[ -z "$orphans" ] && why="" || why="cells outlived their run: $orphans"
[ "$kills" -gt 0 ] || why="$why no run was killed"
[ "$cells" -gt 0 ] || why="$why no run was met at work on a cell"
verdict kill__at_random_moments__leaves_no_cell_behind "$why"

run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(sql "$db" "SELECT count(*), count(DISTINCT key), sum(status = 'ok'), max(attempt) FROM cell")" = "12|12|12|1" ] || why="$why cells: $(sql "$db" "SELECT key, status, attempt, reason FROM cell")"
[ "$(sql "$db" "SELECT count(*) FROM cell c LEFT JOIN prediction p ON p.cell_id = c.id WHERE p.count IS NOT 4")" = 0 ] || why="$why predictions are missing"
[ "$(sql "$db" "SELECT count(*) FROM cell WHERE id NOT IN (SELECT cell_id FROM metric WHERE name = 'accuracy')")" = 0 ] || why="$why metrics are missing"
[ "$(sql "$db" "PRAGMA integrity_check")" = ok ] && [ -z "$(sql "$db" "PRAGMA foreign_key_check")" ] || why="$why $(sql "$db" "PRAGMA integrity_check")"
[ -z "$why" ] || why="$why; $(head -n 1 "$work/moments")"
verdict run__after_the_kills__has_every_cell_once "$why"

# A cell of several seconds does not outlive a run that was killed.
"$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/l.db" -q --set measure.rounds=1000 --set measure.warmup=100 --set measure.inputs=4 --set measure.max_seconds=100000 --set examples=12 --filter method=topk >>"$work/log" 2>&1 &
parent=$!
while [ -e "/proc/$parent/exe" ] && [ -z "$(children $parent)" ]; do sleep 0.01; done
cell=$(children $parent)
kill -KILL $parent
wait $parent 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do [ ! -e "/proc/$cell/exe" ] || sleep 0.05; done
[ -n "$cell" ] && [ ! -e "/proc/$cell/exe" ] && why="" || why="cell '$cell' goes on alone"
verdict kill__long_cell__dies_with_its_run "$why"

# Two runs at once share the work; nothing is there twice and neither fails.
rm -f "$db" "$db"-*
"$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" -q >"$work/one" 2>&1 &
first=$!
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" -q
wait $first
other=$?
[ "$code" -eq 0 ] && [ $other -eq 0 ] && [ "$(sql "$db" "SELECT count(*), count(DISTINCT key), sum(status = 'ok') FROM cell")" = "12|12|12" ] && why="" || why="$code $other $(cat "$work/one" "$work/err") $(sql "$db" "SELECT status, reason FROM cell")"
verdict run__twice_at_once__stores_every_cell_once "$why"

exit $failed
