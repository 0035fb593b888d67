#!/bin/sh
# test_history.sh - a planted step in the history of a cell is found at its commit, and drawn.
. tests/cli/lib.sh

export ICEBENCH_ALLOW_DEBUG=1
cat >"$work/cell.yaml" <<'YAML'
name: tiny
task: synth/clustered
shape: {n: 64, d: 16}
threads: 1
methods: [dense]
measure: {rounds: 2, quality: false}
YAML
db=$work/h.db
"$ICEBENCH_BIN" run "$work/cell.yaml" --db "$db" -q

# Twenty more attempts at the cell: 100 us, from the 13th on 120 us, 1 us to and fro; every attempt of a commit of its own.
sql "$db" "
  UPDATE attempt SET started_utc_ms = 1000000, digest = NULL;
  UPDATE metric SET value = 100000 WHERE name = 'attention_ns';
  CREATE TABLE number (i INTEGER);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO number SELECT i FROM n;
  INSERT INTO build SELECT 100 + i, version, printf('c0ffee%02d', i), 0, '', variant, compiler, cflags, blas FROM build, number WHERE build.id = 1;
  INSERT INTO attempt (id, key, attempt, replaced_utc_ms, experiment, task, model, method, method_version, params, seed, n, heads, head_dim, layers, causal,
    threads, isa, examples, partial, status, machine_id, build_id, started_utc_ms, wall_ms, data_hash, model_hash)
  SELECT 100 + i, key, 1 + i, 5, experiment, task, model, method, method_version, params, seed, n, heads, head_dim, layers, causal,
    threads, isa, examples, partial, status, machine_id, 100 + i, 1000000 + i * 86400000, wall_ms, data_hash, model_hash FROM attempt, number WHERE id = 1;
  INSERT INTO metric SELECT 100 + i, 'attention_ns', iif(i >= 12, 120000, 100000) + 1000 * (i * 7 % 3 - 1), NULL, NULL FROM number;
  INSERT INTO metric SELECT 100 + i, 'timed_inputs', 1, NULL, NULL FROM number;
  DROP TABLE number;"
run "$ICEBENCH_BIN" history --db "$db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q "^dense, n=64 on .*21 measurements, 1 step$" "$work/out" && grep -q "c0ffee12 .*+20" "$work/out" || why="$why $(cat "$work/out")"
verdict history__planted_step__found_at_its_commit "$why"

run "$ICEBENCH_BIN" history --db "$db" --format json
why=""
grep -q '"point": 12' "$work/out" || why="$(cat "$work/out")"
verdict history__json__has_the_step "$why"

if command -v gnuplot >/dev/null; then
  run "$ICEBENCH_BIN" history --db "$db" --out "$work/charts"
  why=""
  [ "$code" -eq 0 ] && grep -q '<svg' "$work/charts/history-1.svg" && grep -q "11.5\|12.5" "$work/charts/history-1.dat" || why="exit code $code: $(cat "$work/err")"
  verdict history__chart__is_drawn "$why"
else
  skipped history__chart__is_drawn "gnuplot is not installed"
fi

verdict history__nothing_there__6 "$(complains 6 "no finished row" history --metric pairs_of_shoes --db "$db")$(complains 6 "did you mean attention_ns?" history --metric attention_n --db "$db")"
verdict history__bad_options__2 "$(complains 2 "--metric" history --metric "a'b" --db "$db")$(complains 2 "--terminal" history --terminal x --db "$db")"

exit $failed
