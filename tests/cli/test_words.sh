#!/bin/sh
# test_words.sh - tasks answered in words, from generated data to marks and the file for the leaderboard, with a tiny model of random weights
# (tests/fixtures/tiny-llama, written by tests/support/tiny_llama.c).
. tests/cli/lib.sh
model="$PWD/tests/fixtures/tiny-llama"
real=${ICEBENCH_DATA_DIR:-} # as the caller has it
export ICEBENCH_DATA_DIR="$work/data" ICEBENCH_DB="$work/r.db"

experiment() { # NAME TASK REST...: a file of an experiment
  printf 'name: %s\ntask: %s\nmodel: %s\nanswer_tokens: 5\nthreads: 1\n' "$1" "$2" "$model" >"$work/$1.yaml"
  shift 2
  printf '%s\n' "$@" "measure: {rounds: 1, warmup: 0, inputs: 1}" >>"$work/$name.yaml"
}

# --- lines ------------------------------------------------------------------------------------------------------------------

name=lines
"$ICEBENCH_BIN" data make longeval/lines --seed 3 --lengths 1,3 --examples 3 -q
experiment lines longeval/lines 'lengths: [1, 3]' 'methods: [dense, iceformer: {k: 8}]'
why=
run "$ICEBENCH_BIN" run "$work/lines.yaml"
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q 'dense, 3 lines: accuracy' "$work/out" || why="$why; $(cat "$work/out")"
[ "$(sql "$work/r.db" "SELECT group_concat(length || ':' || status || ':' || label) FROM (SELECT * FROM results ORDER BY method, length)")" = \
  "1:ok:generated data,3:ok:generated data,1:ok:generated data,3:ok:generated data" ] || why="$why; rows: $(sql "$work/r.db" 'SELECT * FROM results')"
[ "$(sql "$work/r.db" "SELECT count(*), count(mark), min(tokens) > 300 FROM answer")" = "12|12|1" ] || why="$why; answers: $(sql "$work/r.db" 'SELECT * FROM answer')"
verdict run__lines_of_two_lengths__answers_are_stored "$why"

why=
run "$ICEBENCH_BIN" run "$work/lines.yaml"
grep -q '4 there before' "$work/out" || why="$(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" run "$work/lines.yaml" --filter length=3,method=dense --force
grep -q '1 run' "$work/out" || why="$why; filter: $(cat "$work/out" "$work/err")"
verdict run__again__finished_cells_stay "$why"

why=
run "$ICEBENCH_BIN" score "$work/lines.yaml" --dry-run
[ "$code" -eq 0 ] && [ "$(grep -c 'longeval/lines [13] lines: accuracy .* of 3; generated data$' "$work/out")" -eq 4 ] || why="$code: $(cat "$work/out" "$work/err")"
verdict score__as_stored "$why"

# A mark that was stored wrongly is found, and put right; so is that of a single answer.
# An answer that was edited is refused: with new marks it would get a digest that fits.
cp "$work/r.db" "$work/edited.db"
sql "$work/edited.db" "UPDATE answer SET text = 'a better answer' WHERE cell_id = 1"
why=$(complains 8 "row 1 " score "$work/lines.yaml" --db "$work/edited.db")
sql "$work/r.db" "UPDATE attempt SET digest = NULL" # a row older than digests
sql "$work/r.db" "UPDATE metric SET value = 0.625, lo = 0.5, hi = 0.75 WHERE name = 'accuracy' AND cell_id = 1"
before=$(sql "$work/r.db" "SELECT text FROM answer WHERE cell_id = 1")
run "$ICEBENCH_BIN" score "$work/lines.yaml" --dry-run
grep -q 'the database has 0.6250' "$work/out" || why="$(cat "$work/out" "$work/err")"
[ "$(sql "$work/r.db" "SELECT value FROM metric WHERE name = 'accuracy' AND cell_id = 1")" = 0.625 ] || why="$why; a dry run wrote"
run "$ICEBENCH_BIN" score "$work/lines.yaml"
grep -q '^1 rows of .* have new marks' "$work/err" || why="$why; $(cat "$work/err")"
case $(sql "$work/r.db" "SELECT value FROM metric WHERE name = 'accuracy' AND cell_id = 1") in 0.625) why="$why; not put right" ;; esac
[ "$(sql "$work/r.db" "SELECT text FROM answer WHERE cell_id = 1")" = "$before" ] || why="$why; answers changed"
verdict score__wrong_mark__put_right "$why"

# --- ZeroSCROLLS ------------------------------------------------------------------------------------------------------------

mkdir -p "$work/data/zeroscrolls"
row() { # ID OUTPUT: a row whose question stands behind 20 characters
  printf '{"id": "%s", "pid": "%s", "input": "Do.\\n\\nStory:\\nA tale.\\n\\nQ:\\nWho?\\n\\nAnswer:\\n", "output": %s, "document_start_index": 12, ' "$1" "$1" "$2"
  printf '"document_end_index": 19, "query_start_index": 21, "query_end_index": 28, "truncation_seperator": "... [cut]\\n\\n"}\n'
}
{ row 'a' '"Ann"'; row 'b,"2"' '"Bob"'; } | sed 's/"b,"2""/"b,\\"2\\""/g' >"$work/data/zeroscrolls/qasper.jsonl"
row 'c' null >"$work/data/zeroscrolls/gov_report.jsonl"
name=zero
experiment zero '[zeroscrolls/qasper, zeroscrolls/gov_report]' 'methods: [dense, vanilla]'
why=
run "$ICEBENCH_BIN" run "$work/zero.yaml"
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" score "$work/zero.yaml" --filter method=dense
grep -q 'zeroscrolls/gov_report: no marks: 1 answers, no right ones known; not the official rows' "$work/out" || why="$why; $(cat "$work/out")"
grep -q 'ZeroSCROLLS average [0-9.]*, of 1 of the 10 tasks' "$work/out" || why="$why; average: $(cat "$work/out")"
verdict score__zeroscrolls__average_of_what_is_there "$why"

why=
run "$ICEBENCH_BIN" score "$work/zero.yaml" --filter method=dense --submission "$work/s.csv" -q
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(head -n 1 "$work/s.csv")" = 'Task,ID,Prediction' ] || why="$why; $(head -n 1 "$work/s.csv")"
[ "$(grep -c '^gov_report,"c","' "$work/s.csv")$(grep -c '^qasper,"a","' "$work/s.csv")$(grep -c '^qasper,"b,""2""","' "$work/s.csv")" = 111 ] || why="$why; $(cat "$work/s.csv")"
explained=$(complains 2 'choose one with --filter' score "$work/zero.yaml" --submission "$work/t.csv")
[ -z "$explained" ] && [ ! -e "$work/t.csv" ] || why="$why; $explained"
verdict score__submission__a_row_for_each_example "$why"

# --- what is refused --------------------------------------------------------------------------------------------------------

why=$(
  complains 2 'needs lengths' check "$work/zero.yaml" --set task=longeval/lines
  complains 7 'no test split of 7 lines' run "$work/lines.yaml" --set lengths=7
  complains 2 'a prompt of' run "$work/lines.yaml" --set context=64
  complains 7 'no models/checkpoints/none' run "$work/lines.yaml" --set model=none
  complains 2 'allowed vicuna, plain' check "$work/lines.yaml" --set template=x
  complains 6 'no finished rows' score "$work/lines.yaml" --filter method=topk
  complains 2 'allowed KEY=VALUE' score "$work/lines.yaml" --filter k=3
  complains 2 'needs one file' score
  complains 2 'lra/listops has one length' data make lra/listops --lengths 5
  complains 2 'allowed 1..' data make longeval/topics --lengths 500 --out "$work/d"
  printf '{"prompt": "\\ud83d"}\n' >"$work/data/longeval/evaluation/lines/testcases/1_lines.jsonl"
  complains 7 '1_lines.jsonl' run "$work/lines.yaml" --set lengths=1 --force
)
verdict refused__one_line_and_the_right_code "$why"

# --- the real model, on the same prompts ------------------------------------------------------------------------------------

if [ -e "$real/llama/stories260K.f32.gguf" ]; then
  name=stories
  model="$real/llama/stories260K.f32.gguf"
  experiment stories longeval/lines 'lengths: [3]' 'template: plain' 'methods: [dense, iceformer]'
  why=
  run "$ICEBENCH_BIN" run "$work/stories.yaml" --limit 2
  [ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/out" "$work/err")"
  [ "$(sql "$work/r.db" "SELECT count(*) FROM results WHERE experiment = 'stories' AND partial = 1 AND status = 'ok'")" = 2 ] || why="$why; rows"
  verdict run__stories260K "$why"
else
  skipped run__stories260K 'no llama/stories260K.f32.gguf below $ICEBENCH_DATA_DIR'
fi
exit $failed
