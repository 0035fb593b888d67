#!/bin/sh
# test_train_llama.sh - verb train on token streams: a folder that generates and converts, complaints about files.
. tests/cli/lib.sh
tok=tests/fuzz/corpus/fuzz_tokenizer/bytes.model
awk 'BEGIN { for (i = 0; i < 300; i++) printf "abcabc " }' >"$work/t.txt"
printf '{"prompt": "ab?", "answer": "c"}\n{"prompt": "ba?", "expected_number": 12}\n{"text": "aabb"}\n' >"$work/t.jsonl"
cat >"$work/x.yaml" <<END
name: tiny
out: $work/model
tokenizer: $tok
text: [$work/t.txt, $work/t.jsonl]
model: {width: 32, layers: 1, heads: 2, kv_heads: 1, mlp: 48, context: 32, rope_scale: 2}
length: 24
batch: 4
steps: 120
lr: 3.0e-3
threads: 2
END
run "$ICEBENCH_BIN" check "$work/x.yaml"
grep -q 'ok, training tiny of a Llama model: 120 steps of 4 sequences of 24 tokens' "$work/out" && why="" || why="check: $(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" train "$work/x.yaml" -q
[ "$code" -eq 0 ] || why="$why exit code $code: $(cat "$work/err")"
[ ! -e "$work/model.state" ] || why="$why a state is left"
tail -n 1 "$work/model.log.csv" | grep -q '^120,' || why="$why log: $(cat "$work/model.log.csv")"
is "$(sed -n 2p "$work/model.log.csv" | cut -d, -f3) > 2 * $(tail -n 1 "$work/model.log.csv" | cut -d, -f3)" || why="$why it did not learn: $(cat "$work/model.log.csv")"
grep -q '"factor": 2.0' "$work/model/config.json" || why="$why config: $(cat "$work/model/config.json")"
run "$ICEBENCH_BIN" generate "$work/model" --prompt 'abcabc abcab' --tokens 6 -q
grep -q '^c abc' "$work/out" || why="$why it says '$(cat "$work/out" "$work/err")'"
"$ICEBENCH_BIN" convert "$work/model" "$work/m.gguf" -q && "$ICEBENCH_BIN" convert "$work/m.gguf" "$work/again" -q
diff -r "$work/model" "$work/again" >"$work/err" || why="$why $(cat "$work/err")"
verdict train__llama_model__learns_generates_converts "$why"

why="$(complains 2 "exists; name a new folder" train "$work/x.yaml")"
run "$ICEBENCH_BIN" train "$work/x.yaml" --resume
[ "$code" -eq 0 ] || why="$why --resume of a complete one: $(cat "$work/err")"
sed "s,^out: .*,out: $work/other," "$work/x.yaml" >"$work/y.yaml"
printf '{"prompt": "ab?"}\n' >"$work/t.jsonl"
why="$why$(complains 7 "t.jsonl:1: needs a text, or a prompt and an answer" train "$work/y.yaml")"
printf '{"prompt": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "answer": "c"}\n' >"$work/t.jsonl"
why="$why$(complains 7 "length allows" train "$work/y.yaml")"
: >"$work/t.jsonl"
why="$why$(complains 7 "source 2 of the training has no documents" train "$work/y.yaml")"
sed 's/length: 24/length: 65/' "$work/y.yaml" >"$work/z.yaml"
why="$why$(complains 2 "length = 65" check "$work/z.yaml")"
sed 's/mlp: 48/mpl: 48/' "$work/y.yaml" >"$work/z.yaml"
why="$why$(complains 2 "mpl" check "$work/z.yaml")"
why="$why$(complains 2 "takes no overrides" check "$work/y.yaml" --set steps=3)"
verdict train__bad_files__one_line "$why"
# conversations made while training, from a primed start
cat >"$work/d.yaml" <<END
name: drilled
out: $work/drilled
tokenizer: $tok
drills:
  - {kind: lines, bare: true, least: 1, most: 1, turns: 1}
  - {kind: words, bare: true, least: 2, most: 3}
prime: true
model: {width: 32, layers: 3, heads: 4, mlp: 48, context: 512, tied: true}
length: 256
reach: 400
batch: 2
prompt_weight: 0
steps: 4
END
run "$ICEBENCH_BIN" train "$work/d.yaml" -q
[ "$code" -eq 0 ] && [ -f "$work/drilled/model.safetensors" ] && why="" || why="exit code $code: $(cat "$work/err")"
cp "$work/drilled.log.csv" "$work/log" 2>/dev/null
rm -rf "$work/drilled"
sed 's/^prime:/seed: 2\nprime:/' "$work/d.yaml" >"$work/e.yaml"
run "$ICEBENCH_BIN" train "$work/d.yaml" -q --force
cmp -s "$work/log" "$work/drilled.log.csv" || why="$why another run has other losses"
rm -rf "$work/drilled"
run "$ICEBENCH_BIN" train "$work/e.yaml" -q --force
cmp -s "$work/log" "$work/drilled.log.csv" && why="$why another seed has the same losses"
verdict train__drills__same_seed_same_losses "$why"
# what answers count is relative: four times for all drills changes nothing, for one of them it does
why=""
for kinds in '[a-z]*' words; do
  rm -rf "$work/drilled"
  sed "s/kind: \($kinds\),/kind: \1, weight: 4,/" "$work/d.yaml" >"$work/e.yaml"
  run "$ICEBENCH_BIN" train "$work/e.yaml" -q --force
  cmp -s "$work/log" "$work/drilled.log.csv" && same=same || same=other
  [ "$kinds $same" = "[a-z]* same" ] || [ "$kinds $same" = "words other" ] || why="$why weight of $kinds: $same losses;"
done
verdict train__drills__weights_are_relative "$why"

refused() { # WHAT SED: a recipe that check refuses with that text
  sed "$2" "$work/d.yaml" >"$work/e.yaml"
  complains 2 "$1" check "$work/e.yaml"
}
why="$(refused 'kind' 's/kind: words/kind: wards/')"
why="$why$(refused 'least 2, most 1: allowed 1 <= least <= most' 's/most: 3/most: 1/')"
why="$why$(refused 'reach' 's/reach: 400/reach: 513/')"
why="$why$(refused 'prime: a model that goes on from' 's/^prime:/init: x\nprime:/')"
why="$why$(refused 'weight' 's/turns: 1/weight: 0/')"
why="$why$(refused 'turnz' 's/turns: 1/turnz: 1/')"
verdict train__bad_drills__one_line "$why"
exit $failed
