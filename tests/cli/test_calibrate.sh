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
