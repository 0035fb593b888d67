#!/bin/sh
# test_explain.sh - an error taken apart by layers and heads: sums that must hold, schedules that run, rows that are not there.
. tests/cli/lib.sh
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"
tiny_model "$work/m.safetensors" || exit 1
cat >"$work/x.yaml" <<END
name: tiny
task: lra/listops
model: $work/m.safetensors
threads: 2
methods: [dense, {topk: {k: 8}}, {iceformer: {k: 8, levels: 3, beam: 2, visit: 0.3, retrieve: 0.3}}]
measure: {rounds: 1, warmup: 0, inputs: 2}
END
export ICEBENCH_DB="$work/r.db"
run "$ICEBENCH_BIN" run "$work/x.yaml" -q
[ "$code" -eq 0 ] || { cat "$work/err"; exit 1; }

# value FILE KEY: all values of a key, one a line
value() { sed -n "s/^ *\"$2\": \([-0-9.e+]*\),*$/\1/p" "$1"; }

run "$ICEBENCH_BIN" explain tiny --filter method=iceformer --examples 4 --prove 6 --format json -q
cp "$work/out" "$work/ice.json"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
for key in mass lost_too_few lost_missed rel_l2_error best_rel_l2_error; do value "$work/ice.json" $key | head -4 >"$work/$key"; done
[ "$(wc -l <"$work/mass")" -eq 4 ] || why="$why heads: $(cat "$work/mass")"
paste "$work/mass" "$work/lost_too_few" "$work/lost_missed" | awk '{ s = $1 + $2 + $3; if (s < 0.999999 || s > 1.000001 || $3 < -1e-6) bad = 1; missed += $3 } END { exit bad || missed <= 0.001 }' ||
  why="$why mass does not add up, or a poor search missed nothing: $(paste "$work/mass" "$work/lost_too_few" "$work/lost_missed")"
paste "$work/rel_l2_error" "$work/best_rel_l2_error" | awk '{ a += $1; b += $2 } END { exit !(a > b && b > 0) }' || why="$why a perfect search is no better"
verdict explain__poor_search__mass_splits_in_too_few_and_missed "$why"

run "$ICEBENCH_BIN" explain tiny --filter method=topk,k=8 --examples 4 --prove 6 --format json --out "$work/e.yaml" -q
cp "$work/out" "$work/topk.json"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
value "$work/topk.json" lost_missed | awk '$1 > 1e-6 || $1 < -1e-6 { bad = 1 } END { exit bad || NR != 4 }' || why="$why a perfect search missed: $(value "$work/topk.json" lost_missed)"
# the method in all layers is what was run: its logits are those of the last row; one head never moves them more than nothing
is "$(value "$work/topk.json" logits | sed -n 6p) > 0" || why="$why logits of all layers: $(value "$work/topk.json" logits)"
# the work of a schedule is at most that of the row; keys per query of the row are k
value "$work/topk.json" keys | tail -3 | awk 'NR == 1 { k = $1 } $1 > k * 1.02 { bad = 1 } END { exit bad || k != 8 }' || why="$why keys: $(value "$work/topk.json" keys)"
verdict explain__perfect_search__missed_nothing_and_spends_no_more "$why"

run "$ICEBENCH_BIN" check "$work/e.yaml"
why=""
[ "$code" -eq 0 ] || why="check: $(cat "$work/err")"
run "$ICEBENCH_BIN" run "$work/e.yaml"
[ "$code" -eq 0 ] || why="$why run: $(cat "$work/err")"
grep -qx 'threads: 2' "$work/e.yaml" || why="$why threads of the row: $(grep threads "$work/e.yaml")"
grep -q 'schedule={"k":' "$work/out" || why="$why no schedule ran: $(cat "$work/out")"
run "$ICEBENCH_BIN" run "$work/e.yaml"
grep -q '0 run' "$work/out" || why="$why a second run: $(cat "$work/out")"
run "$ICEBENCH_BIN" report --experiment tiny-explained
grep -q '| topk .*schedule={"k":' "$work/out" || why="$why report: $(cat "$work/out")"
verdict explain__file_it_wrote__runs_and_is_reported "$why"

# The file says what was measured: the row with the schedule is taken apart again, and its values are those of the schedule.
run "$ICEBENCH_BIN" explain tiny-explained --examples 2 --prove 2 --format text -q
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q '^| layer | head |  *k |' "$work/out" && grep -q '^| as it was' "$work/out" || why="$why $(cat "$work/out")"
[ "$(sed -n '/^| as it was/,$p' "$work/out" | grep -c '^| same')" -eq 2 ] || why="$why variants"
verdict explain__row_with_a_schedule__is_explained_too "$why"

why=$(complains 2 "needs the name of an experiment" explain)
why="$why$(complains 6 "no finished rows of experiment 'none'" explain none)"
why="$why$(complains 6 "no finished row with method=dense has an approximate method" explain tiny --filter method=dense)"
why="$why$(complains 2 "unknown key 'kk', did you mean k?" explain tiny --filter kk=8)"
"$ICEBENCH_BIN" attn --synth gauss:n=64,d=16 --methods dense,topk --rounds 1 --save -q >/dev/null
why="$why$(complains 2 "explain: synth/gauss is tensors" explain attn)"
why="$why$(complains 2 "'k' is no KEY=VALUE" explain tiny --filter k)"
why="$why$(complains 2 "topk has no such parameter" explain tiny --filter method=topk --vary levels)"
why="$why$(complains 2 "--by = mass, allowed error, logits" explain tiny --by mass)"
why="$why$(complains 2 "--format = csv" explain tiny --format csv)"
why="$why$(complains 8 "no.db" explain tiny --db "$work/no.db")"
head -c 2000 "$work/m.safetensors" >"$work/cut" && cp "$work/m.safetensors" "$work/whole"
cp "$work/cut" "$work/m.safetensors"
why="$why$(complains 7 "m.safetensors" explain tiny --filter method=topk)"
cp "$work/whole" "$work/m.safetensors"
verdict explain__bad_requests__one_line_each "$why"
exit $failed
