#!/bin/sh
# test_check.sh - verbs check, list, show from the command line: every bad file of the manual, each with its one line.
. tests/cli/lib.sh
good='name: x
task: lra/listops
model: lra/listops/softmax
threads: 1
methods:
  - dense
  - topk: {k: [8, 16]}'
x="$work/x.yaml"
# bad NAME TEXT-EXPECTED FILE-TEXT: check refuses the file with exit code 2 and this line
bad() {
  printf '%s\n' "$3" >"$x"
  verdict "check__$1__refused" "$(complains 2 "$2" check "$x")"
}

printf '%s\n' "$good" >"$x"
run "$ICEBENCH_BIN" check "$x"
why=""
[ "$code" -eq 0 ] && grep -qF "$x: ok, experiment x, 3 cells" "$work/out" && grep -qF 'topk {"k":16}' "$work/out" || why="$(cat "$work/out" "$work/err")"
verdict check__good_file__lists_its_cells "$why"

run "$ICEBENCH_BIN" check "$x" --format json
why=""
for word in '"kind": "experiment"' '"n_cells": 3' '"threads": 1' '"rounds": 9' '"memory_gib": 8.0'; do
  grep -qF "$word" "$work/out" || why="$why no $word"
done
[ "$code" -eq 0 ] || why="$why exit code $code"
verdict check__json__tells_the_whole_experiment "$why"

run "$ICEBENCH_BIN" check "$x" --set 'topk.k=1|2|3|4' --set measure.rounds=3
[ "$code" -eq 0 ] && grep -q '5 cells' "$work/out" && grep -q '3 rounds' "$work/out" && why="" || why="$(cat "$work/out" "$work/err")"
verdict check__overrides__are_applied "$why"
verdict check__override_out_of_range__refused "$(complains 2 '--set topk.k = 0, allowed whole numbers 1..' check "$x" --set topk.k=0)"
verdict check__override_unknown__refused "$(complains 2 '--set measure.roundz: unknown key, did you mean measure.rounds?, allowed name, task' check "$x" --set measure.roundz=3)"

verdict check__override_of_unknown_parameter__refused "$(complains 2 '--set topk.kk: unknown parameter of topk kk, did you mean k?' check "$x" --set topk.kk=3)"
verdict check__unknown_preset__refused "$(complains 2 '; did you mean smoke?' check "$x" --preset smok)"
verdict plan__filter_by_unknown_key__refused "$(complains 2 "unknown key 'methd', did you mean method?, allowed task" plan "$x" --filter methd=dense)"

bad preset_with_unknown_key "$x:10:11: measure.round: unknown key, did you mean measure.rounds?" "$good
presets:
  good: {examples: 3}
  worse: {measure.round: 3}"
bad preset_out_of_range "$x:9:28: presets.worse.topk.k = 0, allowed whole numbers 1.." "$good
presets:
  worse: {name: y, topk.k: 0}"
bad name_that_leads_away "name = .., allowed 1..100 letters, digits, '.', '_', '-', the first neither '.' nor '-'" "$(echo "$good" | sed 's/^name:.*/name: ../')"
bad preset_that_leads_away "$x:9:3: preset ../../y: its name is part of that of its rows" "$good
presets:
  ../../y: {examples: 3}"
bad empty_list "methods = an empty list, allowed a list of 1..1000 methods" "name: x
task: lra/listops
model: lra/listops/softmax
methods: []"
bad unknown_key "$x:8:1: unknown key exmaples, did you mean examples?" "$good
exmaples: 3"
bad reserved_name "name = attn, allowed any other name" "$(echo "$good" | sed 's/^name:.*/name: attn/')"
bad wrong_type "$x:8:11: examples = many, allowed whole numbers" "$good
examples: many"
bad out_of_range "$x:8:19: measure.rounds = 0, allowed whole numbers 1..1000" "$good
measure: {rounds: 0}"
bad anchors "anchor &a, not allowed here" "a: &a [x, x]
b: &b [*a, *a, *a]
c: [*b, *b, *b]"
bad too_many_cells "topk: its lists bring the experiment to more than 100000 cells" "name: x
task: lra/listops
model: lra/listops/softmax
seeds: [$(seq -s, 1 1000)]
methods: [topk: {k: [$(seq -s, 1 1000)]}]"
bad deep "nested deeper than 32 levels" "name: $(printf '%0500d' 0 | tr 0 '[')"
bad infinite "limits.seconds = 1e400, allowed numbers" "$good
limits: {seconds: 1e400}"
bad not_a_number "limits.seconds = .nan, allowed numbers" "$good
limits: {seconds: .nan}"

: >"$x"
verdict check__empty_file__refused "$(complains 2 "$x:1:1: nothing in the file" check "$x")"
printf 'name: x\000y\n' >"$x"
verdict check__nul_byte__refused "$(complains 2 "$x:1:8: NUL byte" check "$x")"
printf 'name: \377\n' >"$x"
verdict check__not_utf8__refused "$(complains 2 "$x:1:7: byte 0xff" check "$x")"
truncate -s 100M "$x"
verdict check__100_MB__refused "$(complains 2 "$x: 104857600 bytes, allowed at most 1048576" check "$x")"
rm -f "$x"
verdict check__absent__refused "$(complains 2 "$x: cannot be opened: No such file" check "$x")"
verdict check__folder__refused "$(complains 2 "is a folder" check "$work")"
verdict check__device__refused "$(complains 2 "is a pipe, socket or device" check /dev/zero)"
mkfifo "$work/fifo"
run timeout 20 "$ICEBENCH_BIN" check "$work/fifo"
[ "$code" -eq 2 ] && why="" || why="exit code $code: $(cat "$work/err")"
verdict check__pipe_nobody_writes_to__does_not_hang "$why"

printf '%s\n' "$good" >"$x"
printf 'name: x\n' >"$work/y.yaml"
run "$ICEBENCH_BIN" check -q "$work/y.yaml" "$x" "$work/z.yaml"
[ "$code" -eq 2 ] && grep -q 'y.yaml:1:1: key task is missing' "$work/err" && grep -q 'z.yaml: cannot be opened' "$work/err" && grep -q "x.yaml: ok" "$work/out" && why="" || why="$(cat "$work/out" "$work/err")"
verdict check__several_files__every_fault_is_told "$why"
run "$ICEBENCH_BIN" check -q $(find configs models/checkpoints -name '*.yaml')
[ "$code" -eq 0 ] && why="" || why="$(cat "$work/err")"
verdict check__every_file_of_the_tree__is_fine "$why"

run "$ICEBENCH_BIN" check configs/train/lra-listops-softmax.yaml
[ "$code" -eq 0 ] && grep -q 'ok, training lra-listops-softmax' "$work/out" && why="" || why="$(cat "$work/out" "$work/err")"
verdict check__training__is_told_as_one "$why"
printf 'name: t\ntask: lra/listops\nout: t.safetensors\nsteps: 100\nwarmup: 100\n' >"$x"
verdict check__training_with_a_fault__refused "$(complains 2 "$x:5:9: warmup = 100, allowed whole numbers 1..99" check "$x")"
verdict check__training_with_set__refused "$(complains 2 "takes no overrides" check configs/train/lra-listops-softmax.yaml --set steps=3)"

# --- the files that are shipped
run "$ICEBENCH_BIN" check -q $(find configs -name '*.yaml')
[ "$code" -eq 0 ] && [ "$(grep -c ': ok, ' "$work/out")" -eq "$(find configs -name '*.yaml' | wc -l)" ] && why="" || why="$(cat "$work/err")"
verdict check__every_file_of_configs__is_right "$why"

run "$ICEBENCH_BIN" check -v configs/paper/lra.yaml
why=""
for model in $(awk '$3 == "seed" { print $2 }' "$work/out" | sort -u); do
  [ -e "configs/train/$(echo "$model" | tr / -).yaml" ] || why="$why $model"
done
[ "$code" -eq 0 ] || why="$(cat "$work/err")"
verdict check__models_of_the_comparison__have_a_recipe_each "$why"

# Every bar and every point that was read off has a cell in a file of its figure; language models go by other names here.
run "$ICEBENCH_BIN" check -v configs/paper/figures/*.yaml
why=$(cat results/paper/lra-latency.csv results/paper/lra-memory.csv results/paper/longeval.csv | awk -F, '
  NR == FNR { split($0, cell, " +"); have[cell[2] " " (cell[2] ~ /^lra/ ? cell[3] " " : "") cell[6]] = 1; next }
  $1 !~ /^(lra|longeval|zeroscrolls)\// || ($1 == "zeroscrolls/qasper" && $2 == "htransformer1d") { next } # which has no causal form
  { seen++; want = $1 " " ($1 ~ /^lra/ ? $1 "/" $3 " " : "") $2; if (!have[want]) print "no cell: " want }
  END { if (seen < 100) print "only " seen " published values" }' "$work/out" - | sort -u)
[ "$code" -eq 0 ] || why="$(cat "$work/err")"
verdict check__published_figures__have_a_cell_for_every_value "$why"

# --- list, show, the environment
why=""
run "$ICEBENCH_BIN" list configs --format json
[ "$code" -eq 0 ] && [ "$(grep -c '"kind": "\(experiment\|training\|aims\)"' "$work/out")" -eq "$(find configs -name '*.yaml' | wc -l)" ] && why="" || why="$(grep -B 2 -A 2 '"kind": ""\|"fault"' "$work/out" | head)"
verdict list__every_file_of_configs__has_a_kind "$why"
for what in methods tasks models configs; do
  run "$ICEBENCH_BIN" list "$what"
  [ "$code" -eq 0 ] && [ "$(wc -l <"$work/out")" -ge 2 ] || why="$why $what: $(cat "$work/out" "$work/err")"
  run "$ICEBENCH_BIN" list "$what" --format json
  [ "$code" -eq 0 ] && grep -q '"name": ' "$work/out" || why="$why $what as JSON"
done
verdict list__every_kind__as_text_and_json "$why"
run "$ICEBENCH_BIN" list models --format json
grep -q '"dev_accuracy": ' "$work/out" && grep -q '"path": "models/checkpoints/' "$work/out" && why="" || why="$(cat "$work/out")"
verdict list__models__with_their_metadata "$why"
run "$ICEBENCH_BIN" list configs
grep -q '^configs/train/lra-listops-softmax.yaml  *training ' "$work/out" && grep -q '^configs/quickstart.yaml  *experiment ' "$work/out" && why="" || why="$(cat "$work/out")"
verdict list__configs__relative_and_of_both_kinds "$why"
verdict list__unknown_kind__names_the_nearest "$(complains 2 'did you mean models?' list modells)"
run "$ICEBENCH_BIN" show iceformer --format json
[ "$code" -eq 0 ] && grep -q '"max": 1048576' "$work/out" && grep -q '"type": "choice"' "$work/out" && why="" || why="$(cat "$work/out" "$work/err")"
verdict show__json__ranges_are_numbers "$why"
verdict show__no_method__says_what_is_needed "$(complains 2 'needs one method' show)"
run env ATTN_ISA=mmx "$ICEBENCH_BIN" list methods
[ "$code" -eq 2 ] && grep -q 'ATTN_ISA=mmx' "$work/err" && why="" || why="exit code $code: $(cat "$work/err")"
verdict environment__unknown_instruction_set__refused "$why"
printf '%s\n' "$good" >"$x"
run env ICEBENCH_THREADS=none "$ICEBENCH_BIN" check "$x"
[ "$code" -eq 2 ] && grep -q 'ICEBENCH_THREADS = none, allowed whole numbers 1..256' "$work/err" && why="" || why="exit code $code: $(cat "$work/err")"
verdict environment__bad_thread_count__refused "$why"
if [ -e /dev/full ]; then
  "$ICEBENCH_BIN" list methods >/dev/full 2>"$work/err"
  [ $? -eq 1 ] && grep -q 'cannot write the output' "$work/err" && why="" || why="$(cat "$work/err")"
  verdict output__full_disk__is_an_error "$why"
else
  skipped output__full_disk__is_an_error "no /dev/full"
fi
exit $failed
