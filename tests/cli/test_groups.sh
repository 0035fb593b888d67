#!/bin/sh
# test_groups.sh - cells on tensors that differ in late parameters only run on one index, and are rows as if each had run alone.
. tests/cli/lib.sh
cat >"$work/x.yaml" <<'YAML'
name: groups
task: synth/clustered
shape: {h: 2, n: 256, d: 16}
threads: 1
methods:
  - iceformer: {k: [4, 16], levels: [1, 2], beam: [4, 8]}
  - topk: {k: [4, 8]}
measure: {rounds: 2, warmup: 0}
YAML
db="$work/g.db"
rows() { sql "$1" "SELECT $2 FROM cell c $3"; }
number() { echo "(SELECT value FROM metric m WHERE m.cell_id = c.id AND m.name = '$1')"; }
# All that a row says except time: order, parent and moment must not matter.
numbers="c.key, c.status, $(number pairs), $(number peak_bytes), $(number bytes_touched), $(number rel_l2_error), $(number mass), $(number recall)"
# How often vanilla's first round was timed: once a group. A sanitizer build stores no times.
references() { sql "$1" "SELECT count(DISTINCT ns) FROM sample WHERE method = 'vanilla' AND phase = 'attention' AND round = 0"; }
if "$ICEBENCH_BIN" --version | grep -qE 'release|debug'; then timed=1; else timed=0; fi

run "$ICEBENCH_BIN" plan "$work/x.yaml" --db "$db"
why=""
[ "$(grep -c '^  todo ' "$work/out")" -eq 3 ] && [ "$(grep -c '^  + todo ' "$work/out")" -eq 7 ] || why="$(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" plan "$work/x.yaml" --db "$db" --set measure.precision=0.1
grep -q '^  + ' "$work/out" && why="$why; a stop rule of several: $(cat "$work/out")"
verdict plan__late_parameters__one_group_for_each_index "$why"

run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db"
why=""
[ "$code" -eq 0 ] && grep -q '10 cells, 10 run' "$work/out" || why="exit code $code: $(cat "$work/out" "$work/err")"
[ "$timed" -eq 0 ] || [ "$(references "$db")" -eq 3 ] || why="$why references: $(references "$db")"
for k in 4 8 16; do
  for beam in 4 8; do "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/alone.db" --filter "method=iceformer,k=$k,beam=$beam,levels=1" -q; "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/alone.db" --filter "method=iceformer,k=$k,beam=$beam,levels=2" -q; done
  "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/alone.db" --filter "method=topk,k=$k" -q
done >/dev/null 2>&1
[ "$timed" -eq 0 ] || [ "$(references "$work/alone.db")" -eq 10 ] || why="$why alone: $(references "$work/alone.db")"
rows "$db" "$numbers" "ORDER BY c.key" >"$work/together"
rows "$work/alone.db" "$numbers" "ORDER BY c.key" >"$work/alone"
[ "$(wc -l <"$work/together")" -eq 10 ] && cmp -s "$work/together" "$work/alone" || why="$why $(diff "$work/together" "$work/alone" | head -6)"
verdict run__group__rows_of_cells_alone "$why"

# Finished cells of a group stay as they are; the rest of it is a group still, in whatever order.
part="$work/part.db"
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$part" --filter method=iceformer,levels=2,k=16,beam=4 -q
before=$(rows "$part" "c.started_utc_ms, c.digest")
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$part" --set shuffle=5
why=""
grep -q '10 cells, 9 run .*1 there before' "$work/out" || why="$(cat "$work/out" "$work/err")"
[ "$timed" -eq 0 ] || [ "$(references "$part")" -eq 4 ] || why="$why references: $(references "$part")"
[ "$(rows "$part" "c.started_utc_ms, c.digest" "ORDER BY c.id LIMIT 1")" = "$before" ] || why="$why the first row has changed"
verdict run__group__goes_on_where_it_stopped "$why"

# A group that comes to nothing is taken apart: sets of 2,048 keys do not fit, and the cell with 4 is not blamed for them.
# (Sanitizers need memory of their own.)
printf 'name: apart\ntask: synth/clustered\nshape: {h: 8, n: 2048, d: 16}\nthreads: 1\nmethods: [{topk: {k: [4, 2048]}}]\nmeasure: {rounds: 1, warmup: 0}\nlimits: {memory_gib: 0.09}\n' >"$work/apart.yaml"
if [ "$timed" -eq 1 ]; then run "$ICEBENCH_BIN" run "$work/apart.yaml" --db "$work/apart.db"; fi
why=""
[ "$timed" -eq 0 ] || [ "$(rows "$work/apart.db" "sum(c.status = 'ok'), sum(c.status = 'oom')")" = "1|1" ] || why="exit code $code: $(cat "$work/out" "$work/err")"
verdict run__group_fails__each_cell_alone "$why"
# Shards keep groups whole, 4 + 4 + 2 cells; more shards than groups halve the longest until there are enough.
whole="$work/whole.db"
run "$ICEBENCH_BIN" shard "$work/x.yaml" -n 3 --out "$work/three" --db "$whole"
why=""
[ "$code" -eq 0 ] && [ "$(wc -l "$work"/three/[123].cells | awk '$2 != "total" {print $1}' | sort | xargs)" = "2 4 4" ] || why="$(cat "$work/out" "$work/err")"
for shard in 1 2 3; do
  [ "$(sed 's/.*"method":"\([a-z]*\)".*/\1/; t; s/.*//' "$work/three/$shard.cells" | sort -u | wc -l)" -eq 1 ] || why="$why shard $shard mixes methods"
  [ "$(grep -o '"levels":[0-9]*' "$work/three/$shard.cells" | sort -u | wc -l)" -le 1 ] || why="$why shard $shard mixes indexes"
done
for n in 4 10; do
  run "$ICEBENCH_BIN" shard "$work/x.yaml" -n $n --out "$work/shards$n" --db "$whole"
  [ "$code" -eq 0 ] && [ "$(cat "$work/shards$n"/*.cells | sort -u | wc -l)" -eq 10 ] && [ "$(find "$work/shards$n" -name '*.cells' -size +0 | wc -l)" -eq $n ] || why="$why -n $n: $(cat "$work/out" "$work/err")"
done
"$ICEBENCH_BIN" run "$work/x.yaml" --cells "$work/three/1.cells" --db "$whole" -q
"$ICEBENCH_BIN" run "$work/x.yaml" --db "$whole" --filter method=topk,k=4 -q
run "$ICEBENCH_BIN" shard "$work/x.yaml" -n 99 --out "$work/none" --db "$whole"
left=$(sql "$whole" "SELECT 10 - count(*) FROM cell")
[ "$code" -eq 2 ] && grep -q "allowed 1..$left, the cells" "$work/err" || why="$why too many: $code $(cat "$work/err")"
run "$ICEBENCH_BIN" shard "$work/x.yaml" -n "$left" --out "$work/rest" --db "$whole"
[ "$code" -eq 0 ] && [ "$(cat "$work"/rest/*.cells | sort -u | wc -l)" -eq "$left" ] || why="$why the rest: $(cat "$work/out" "$work/err")"
verdict shard__groups__stay_whole "$why"

# What rides with another cell costs less than it would alone: no child, no references. With the first cells of a group there, the next pays.
seconds() { "$ICEBENCH_BIN" plan "$work/x.yaml" --db "$1" --format json --filter method=topk | tr -d ' \n' | grep -o '"seconds":[0-9.e-]*,"known"' | sed 's/[^:]*:\([^,]*\),.*/\1/' | xargs; }
why=""
seconds "$work/empty.db" | awk '{exit !(NF == 2 && $1 > 5 * $2)}' || why="two cells: $(seconds "$work/empty.db")"
verdict plan__group__the_first_cell_pays_for_the_rest "$why"

exit $failed
