#!/bin/sh
# test_calibrate.sh - calibrate and compare as one uses them, on cells so small that nothing is said about time.
. tests/cli/lib.sh

cat >"$work/cell.yaml" <<'YAML'
name: tiny
task: synth/clustered
shape: {n: 64, d: 16}
threads: 1
methods: [dense]
measure: {rounds: 6, quality: false}
YAML
export ICEBENCH_ALLOW_DEBUG=1

run "$ICEBENCH_BIN" calibrate "$work/cell.yaml" --runs 3 --db "$work/r.db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(sql "$work/r.db" "SELECT count(*), min(runs), min(rounds), min(floor) >= 0, min(json_valid(power)) FROM noise_floor")" = "1|6|6|1|1" ] ||
  why="$why rows: $(sql "$work/r.db" "SELECT * FROM noise_floor")"
[ "$(sql "$work/r.db" "SELECT count(*) FROM attempt")" = 0 ] || why="$why runs were stored as results"
verdict calibrate__tiny_cell__stores_its_floor_and_no_results "$why"

# The floor that is stored is the one that compare takes.
sql "$work/r.db" "UPDATE noise_floor SET floor = 0.125"
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/r.db" -q
run "$ICEBENCH_BIN" compare "$work/r.db" "$work/r.db" --format json --detect 100
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q '"noise_floor": 0.125' "$work/out" && grep -q '"gate": 0.125' "$work/out" || why="$why $(cat "$work/out")"
verdict compare__calibrated_machine__gates_at_its_floor "$why"

# A slowdown far beyond any noise of this machine: the method takes eleven times as long.
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/slow.db" -q --set measure.slowdown=10 --set measure.rounds=9
run "$ICEBENCH_BIN" compare "$work/r.db" "$work/slow.db"
why=""
[ "$code" -eq 4 ] || why="exit code $code, expected 4: $(cat "$work/out" "$work/err")"
sql "$work/slow.db" "SELECT label FROM results" | grep -q 'slowed by 1000 %' || why="$why the row does not say that it was slowed"
verdict compare__injected_slowdown__4 "$why"

# Several processes: rounds of each, judged once; the samples say whose they are, and the numbers of the row are made of all of them.
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/many.db" -q --set measure.processes=7 --set measure.quality=true
why=""
samples=$(sql "$work/many.db" "SELECT count(*), count(DISTINCT round / 1000), max(round), min(ns) > 0 FROM sample WHERE method = 'dense' AND phase = 'attention'")
[ "$samples" = "42|7|6005|1" ] || why="samples: $samples"
row=$(sql "$work/many.db" "SELECT rounds, status, label IS NULL, rel_l2_error IS NOT NULL, attention_ns_lo <= attention_ns AND attention_ns <= attention_ns_hi FROM results")
[ "$row" = "42|ok|1|1|1" ] || why="$why row: $row"
run "$ICEBENCH_BIN" compare "$work/many.db" "$work/many.db" --format json --detect 100
[ "$code" -eq 0 ] && grep -q '"runs_base": 7' "$work/out" || why="$why exit code $code: $(cat "$work/out" "$work/err")"
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/many.db" -q --set measure.processes=7 --set measure.quality=true --set measure.slowdown=10 --set name=slow
run "$ICEBENCH_BIN" compare "$work/many.db#tiny" "$work/many.db#slow" --format json
[ "$code" -eq 4 ] || why="$why slowed: exit code $code: $(cat "$work/out" "$work/err")"
verdict run__seven_processes__one_row_of_all_their_rounds "$why"

run "$ICEBENCH_BIN" calibrate "$work/cell.yaml" --runs 3 --set measure.processes=6 --db "$work/six.db"
[ "$code" -eq 0 ] && [ "$(sql "$work/six.db" "SELECT runs, rounds, floor >= 0 FROM noise_floor")" = "6|36|1" ] && why="" ||
  why="exit code $code: $(cat "$work/err") $(sql "$work/six.db" "SELECT * FROM noise_floor")"
verdict calibrate__six_processes__36_rounds_a_measurement "$why"
verdict run__no_process__2 "$(complains 2 "1..100" run "$work/cell.yaml" --set measure.processes=0 --db "$work/r.db")"

# A cell that fails where it used to work: its processes are shot while they measure.
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/dead.db" -q --set measure.rounds=1000 --set measure.processes=100 2>"$work/err" &
runner=$!
while kill -0 "$runner" 2>/dev/null; do
  child=$(cat "/proc/$runner/task/$runner/children" 2>/dev/null)
  [ -z "$child" ] || kill -SEGV $child 2>/dev/null # a list of words
done
wait "$runner"
run "$ICEBENCH_BIN" compare "$work/r.db" "$work/dead.db"
why=""
[ "$code" -eq 5 ] || why="exit code $code, expected 5: $(cat "$work/out" "$work/err")"
grep -qi "fail" "$work/out" || why="$why $(cat "$work/out")"
verdict compare__cell_that_now_fails__5 "$why"

# A row that somebody edited, and a database of a later version, are no evidence.
cp "$work/slow.db" "$work/edited.db"
sql "$work/edited.db" "UPDATE sample SET ns = ns / 11"
run "$ICEBENCH_BIN" compare "$work/r.db" "$work/edited.db"
[ "$code" -eq 8 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && why="" || why="edited: exit code $code: $(cat "$work/out" "$work/err");"
sql "$work/edited.db" "PRAGMA user_version = 999"
run "$ICEBENCH_BIN" compare "$work/r.db" "$work/edited.db"
[ "$code" -eq 8 ] && [ "$(wc -l <"$work/err")" -eq 1 ] || why="$why newer: exit code $code: $(cat "$work/out" "$work/err")"
verdict compare__edited_or_newer__8 "$why"

verdict compare__nobody__6 "$(complains 6 "no row of experiment nobody" compare "$work/r.db" "$work/r.db#nobody")"
verdict calibrate__few_rounds__2 "$(complains 2 "raise measure.rounds" calibrate "$work/cell.yaml" --runs 3 --set measure.rounds=5 --db "$work/r.db")"
verdict calibrate__bad_options__2 "$(complains 2 "--runs" calibrate --runs 2 --db "$work/r.db")$(complains 2 "--rate" calibrate --rate 1 --db "$work/r.db")"

# Counts repeat where times do not. (The code's own clock reads and a few branches on addresses differ.)
if [ -x /usr/bin/valgrind ] && ! "$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/t.db" --twin 2>&1 | grep -q "no twin"; then
  "$ICEBENCH_BIN" run "$work/cell.yaml" --db "$work/t.db" --twin --force -q
  counts=$(sql "$work/t.db" "SELECT count(*), min(value) > 10000, max(value) < 1.005 * min(value) FROM metric WHERE name = 'twin_instructions'")
  [ "$counts" = "2|1|1" ] && why="" || why="$counts: $(sql "$work/t.db" "SELECT value FROM metric WHERE name = 'twin_instructions'")"
  verdict run__twin__counts_repeat "$why"
else
  skipped run__twin__counts_repeat "valgrind is not installed, or cannot run this build"
fi

exit $failed
