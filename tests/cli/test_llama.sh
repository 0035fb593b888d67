#!/bin/sh
# test_llama.sh - verbs generate and convert: answers, one-line complaints, there and back.
. tests/cli/lib.sh
model="${ICEBENCH_DATA_DIR:-/nowhere}/llama/stories260K.f32.gguf"
why=""
why="$why$(complains 2 "needs a model and a new name" convert a)"
why="$why$(complains 2 "allowed keep, f32, f16, bf16, q8_0" convert a b --dtype q4)"
why="$why$(complains 7 "cannot be opened" convert "$work/none.gguf" "$work/x")"
printf 'GGUF\003\000\000\000' >"$work/cut.gguf"
why="$why$(complains 7 "cut.gguf" convert "$work/cut.gguf" "$work/x")"
[ ! -e "$work/x" ] || why="$why something was left"
verdict convert__bad_requests__one_line "$why"

why=""
why="$why$(complains 2 "needs a model and one of --prompt" generate "$work/cut.gguf")"
why="$why$(complains 2 "needs a model and one of --prompt" generate "$work/cut.gguf" --prompt a --file b)"
why="$why$(complains 7 "cut.gguf" generate "$work/cut.gguf" --prompt a)"
why="$why$(complains 2 "begins with 7b" generate random:8b --random-tokens 4)"
why="$why$(complains 2 "no multiple" generate random:7b,layers=1,heads=3,kv_heads=2 --random-tokens 4)"
why="$why$(complains 2 "has no tokenizer" generate random:7b --prompt a)"
verdict generate__bad_requests__one_line "$why"

small=random:7b,vocab=64,width=64,layers=2,heads=4,kv_heads=2,head_dim=16,mlp=96
run "$ICEBENCH_BIN" generate $small --random-tokens 300 --tokens 5 --method iceformer --set k=8 --dense-layers 0 --format json
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
for key in attention_ns model_ns layer_ns decode_ns peak_bytes weight_bytes run_bytes pairs ids; do grep -q "\"$key\"" "$work/out" || why="$why no $key"; done
grep -q '"prompt_tokens": 300' "$work/out" || why="$why prompt_tokens"
why="$why$(complains 2 "allowed whole numbers 0..1" generate $small --random-tokens 9 --dense-layers 2)"
why="$why$(complains 2 "iceformre" generate $small --random-tokens 9 --method iceformre)"
why="$why$(complains 2 "icecells" generate $small --random-tokens 9 --method icecells --set cells=nonsense)"
verdict generate__random_model__json_has_the_costs "$why"

if [ ! -r "$model" ]; then
  skipped generate__stories__text_and_there_and_back "ICEBENCH_DATA_DIR is not set, or has no llama/stories260K.f32.gguf"
else
  why=""
  run "$ICEBENCH_BIN" generate "$model" --prompt 'Once upon a time' --tokens 12 -q
  [ "$(cat "$work/out")" = ", there was a little girl named Lily. She" ] || why="answer: $(cat "$work/out" "$work/err")"
  "$ICEBENCH_BIN" convert "$model" "$work/folder" -q && "$ICEBENCH_BIN" convert "$work/folder" "$work/back.gguf" -q || why="$why convert failed"
  run "$ICEBENCH_BIN" generate "$work/folder" --prompt 'Once upon a time' --tokens 12 -q
  [ "$(cat "$work/out")" = ", there was a little girl named Lily. She" ] || why="$why answer of the folder: $(cat "$work/out" "$work/err")"
  "$ICEBENCH_BIN" convert "$work/back.gguf" "$work/folder2" -q
  diff -r "$work/folder" "$work/folder2" >"$work/err" || why="$why $(cat "$work/err")"
  why="$why$(complains 2 "exists; name a new folder" convert "$model" "$work/folder")"
  verdict generate__stories__text_and_there_and_back "$why"
fi
exit $failed
