#!/bin/sh
# test_bench.sh - experiments on synthetic tensors: rows like any other, resumed, and what does not fit is left out and said so.
. tests/cli/lib.sh
db="$work/b.db"
cat >"$work/x.yaml" <<'YAML'
name: grid
task: synth/clustered
shape: {h: 2, n: [64, 128], d: 8, causal: [false, true]}
threads: 2
methods: [vanilla, dense, {topk: {k: [4, 128]}}]
measure: {rounds: 2, warmup: 0}
YAML
rows() { sql "$db" "SELECT $1 FROM results $2"; }
# A sanitizer build stores no times, nor what is made of them.
if "$ICEBENCH_BIN" --version | grep -qE 'release|debug'; then timed=1; else timed=NULL; fi

run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(rows "count(*), count(DISTINCT method || params || n || causal)" "WHERE status = 'ok' AND heads = 2 AND head_dim = 8 AND layers = 1 AND examples = 1")" = "16|16" ] || why="$why rows: $(rows '*')"
[ "$(rows "group_concat(DISTINCT model)" "WHERE causal AND n = 64")" = "h=2,d=8,causal" ] || why="$why models: $(rows 'DISTINCT model, causal')"
[ "$(rows 'count(*)' "WHERE (attention_ns > 0) IS $timed AND (speedup_dense > 0 AND speedup_vanilla > 0) IS $timed AND peak_bytes > 0 AND accuracy IS NULL AND retention IS NULL")" = 16 ] || why="$why numbers: $(rows 'method, attention_ns, speedup_dense, accuracy')"
# pairs: all of them, or n (n + 1) / 2 under the causal order
[ "$(rows 'count(*)' "WHERE method = 'vanilla' AND pairs = 2 * n * n")" -ge 2 ] || why="$why pairs: $(rows 'method, n, causal, pairs')"
[ "$(rows 'count(*)' "WHERE method = 'topk' AND json_extract(params, '\$.k') = 128 AND rel_l2_error < 1e-5 AND recall = 1")" = 4 ] || why="$why topk of all: $(rows 'n, params, rel_l2_error, recall' "WHERE method = 'topk'")"
[ "$(rows 'count(*)' "WHERE method = 'topk' AND json_extract(params, '\$.k') = 4 AND rel_l2_error > 1e-3 AND mass < 1")" = 4 ] || why="$why topk of 4: $(rows 'n, params, rel_l2_error, mass' "WHERE method = 'topk'")"
verdict run__tensors__rows_like_any_other "$why"

run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db"
grep -q '16 cells, 0 run .*16 there before' "$work/out" && why="" || why="again: $(cat "$work/out")"
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" --set 'shape.n=64|256' --filter method=dense
grep -q '4 cells, 2 run .*2 there before' "$work/out" || why="$why longer: $(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" plan "$work/x.yaml" --db "$db" --set 'shape.n=512'
grep -q '8 cells, 0 there, 8 to run' "$work/out" && grep -q 'clustered:h=2,n=512,d=8,causal=1' "$work/out" || why="$why plan: $(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" report --db "$db"
grep -q '| tokens' "$work/out" && grep -q 'Tensors h=2,d=8,causal' "$work/out" || why="$why report: $(cat "$work/out" "$work/err")"
verdict run__again_and_longer__only_what_is_missing "$why"

# The same tensors as attn makes of the same source.
"$ICEBENCH_BIN" attn --synth clustered:h=2,n=128,d=8,seed=1 --methods topk --set topk.k=4 --rounds 1 --format json >"$work/out" 2>"$work/err"
ours=$(rows rel_l2_error "WHERE method = 'topk' AND n = 128 AND NOT causal AND json_extract(params, '\$.k') = 4")
is "$(field "$work/out" 1 rel_l2_error) > 0.999999 * $ours && $(field "$work/out" 1 rel_l2_error) < 1.000001 * $ours" && why="" || why="attn: $(field "$work/out" 1 rel_l2_error), run: $ours"
verdict run__tensors__agree_with_attn "$why"

# References and errors that would not fit into max_seconds are left out of the cell: NULL, and the reason.
printf 'name: long\ntask: synth/gauss\nshape: {n: 8192, d: 64, h: 2}\nthreads: 1\nmethods: [{icecells: {visit: 1}}]\nmeasure: {rounds: 1, warmup: 0, max_seconds: 0.1}\n' >"$work/long.yaml"
run "$ICEBENCH_BIN" run "$work/long.yaml" --db "$db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(rows 'speedup_dense IS NULL AND speedup_vanilla IS NULL AND rel_l2_error IS NULL AND recall IS NULL' "WHERE (attention_ns > 0) IS $timed AND experiment = 'long'")" = 1 ] || why="$why row: $(rows '*' "WHERE experiment = 'long'")"
for what in 'no speed-up against vanilla' 'no speed-up against dense' 'no errors'; do
  rows reason "WHERE experiment = 'long'" | grep -qF "$what" || why="$why not said: $what: $(rows reason "WHERE experiment = 'long'")"
done
verdict run__references_too_slow__left_out_with_the_reason "$why"

printf 'name: big\ntask: synth/gauss\nshape: {n: 65536}\nmethods: [vanilla]\nmeasure: {rounds: 1}\nlimits: {memory_gib: 0.5}\n' >"$work/big.yaml"
run "$ICEBENCH_BIN" run "$work/big.yaml" --db "$db"
[ "$code" -eq 3 ] && [ "$(rows status "WHERE experiment = 'big'")" = oom ] && why="" || why="exit code $code, $(rows 'status, reason' "WHERE experiment = 'big'")"
verdict run__beyond_the_memory__is_a_row "$why"

# --- aims

cat >"$work/aims.yaml" <<'YAML'
rounds: 2
warmup: 0
limit_seconds: 20
aims:
  - {id: easy, aim: "no slower than a thousandth of vanilla", kind: speedup, at_least: 0.001, need: {rel_l2_error: 0.1}, of: {method: dense, n: 64}, over: {method: vanilla, n: 64}}
  - {id: hard, aim: "a query in no time", kind: cpu_us, at_most: 0, of: {method: dense, h: 2, n: 64}}
  - {id: absent, aim: "a method that is not there", kind: cpu_us, at_most: 1, of: {method: nonsense, n: 64}}
  - {id: endless, aim: "far too much work", kind: cpu_us, at_most: 1, of: {method: topk, h: 64, n: 131072, d: 128}}
YAML
sed -i '/endless/!b;s/^/#/' "$work/aims.yaml"
run "$ICEBENCH_BIN" gate "$work/aims.yaml" --db "$work/aims.db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q 'thousandth of vanilla .*>= 0.001 .*reached  error' "$work/out" && grep -q 'in no time .*not reached' "$work/out" || why="$why lines: $(cat "$work/out")"
grep -q 'not there .*unsupported: unknown method nonsense' "$work/out" && grep -q '1 of 3 aims reached, 2 measured' "$work/out" || why="$why lines: $(cat "$work/out")"
stored=$(sql "$work/aims.db" "SELECT c.task, c.status, (SELECT value FROM metric WHERE cell_id = c.id AND name = 'aim_reached'), (SELECT count(*) FROM metric WHERE cell_id = c.id AND name IN ('aim_measured', 'aim_at_least', 'aim_at_most') AND value >= 0) FROM cell c ORDER BY c.id" | tr '\n' ' ')
[ "$stored" = "aim/easy|ok|1.0|2 aim/hard|ok|0.0|2 aim/absent|unsupported||1 " ] || why="$why stored: $stored"
run "$ICEBENCH_BIN" gate "$work/aims.yaml" --db "$work/aims.db" --format json
[ "$code" -eq 0 ] && [ "$(grep -c '"measured": [0-9]' "$work/out")" -eq 2 ] || why="$why json: $code $(cat "$work/out" "$work/err")"
[ "$(sql "$work/aims.db" 'SELECT count(*), (SELECT count(*) FROM history) FROM cell')" = "3|3" ] || why="$why again: $(sql "$work/aims.db" 'SELECT task, attempt FROM attempt')"
verdict aims__reached_or_not__exit_code_0_and_stored "$why"

sed -i -e '/absent/d;/hard/d;s/^#//;s/limit_seconds: 20/limit_seconds: 1/' "$work/aims.yaml"
run "$ICEBENCH_BIN" gate "$work/aims.yaml" --db "$work/aims.db" --format json
[ "$code" -eq 0 ] && grep -q '"status": "timeout"' "$work/out" && [ "$(sql "$work/aims.db" "SELECT status FROM cell WHERE task = 'aim/endless'")" = timeout ] && why="" || why="$code $(cat "$work/out" "$work/err")"
why="$why$(complains 2 "--only = nothing, allowed easy, endless" gate "$work/aims.yaml" --only nothing)"
why="$why$(complains 2 "needs one file" gate)"
why="$why$(complains 2 "No such file" gate "$work/none.yaml")"
verdict aims__too_long_or_unknown__one_line "$why"

exit $failed
