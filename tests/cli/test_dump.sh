#!/bin/sh
# test_dump.sh - tapes: written whole or not at all, replayed as one measurement, every damage found.
. tests/cli/lib.sh
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"
tiny_model "$work/m.safetensors" || exit 1
printf 'name: tiny\ntask: lra/listops\nmodel: %s\nthreads: 2\nmethods: [topk, dense]\n' "$work/m.safetensors" >"$work/x.yaml"
sed 's/, dense//' "$work/x.yaml" >"$work/inexact.yaml"
t="$work/below/tape"
tape_field() { field "$work/out" $(($1 + 1)) "$2"; } # the tape itself names a method first

# --- whole tapes

run "$ICEBENCH_BIN" dump "$work/x.yaml" --limit 3 --out "$t"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(ls "$t" | wc -l)" -eq 19 ] || why="$why files: $(ls "$t")"
grep -q '"method": "dense"' "$t/manifest.json" || why="$why not the exact method"
run "$ICEBENCH_BIN" dump "$work/x.yaml" --limit 3 --out "$work/again" -q
diff -r "$t" "$work/again" >"$work/err" || why="$why twice: $(cat "$work/err")"
verdict dump__twice__same_bytes "$why"

run "$ICEBENCH_BIN" attn --tape "$t" --methods dense,topk --set 'topk.k=4|4096' --rounds 2 --format json --save --db "$work/a.db"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
# all calls are one measurement: pairs are 2 heads * n^2, summed over calls; layers add up to the whole
want=$(awk '/"n":/ { sub(",", "", $2); sum += 2 * $2 * $2 } END { print sum }' "$t/manifest.json")
[ "$(tape_field 1 pairs)" = "$want" ] || why="$why pairs of dense: $(tape_field 1 pairs), expected $want"
parts=$(awk '$1 == "\"pairs\":" { sub(",", "", $2); n++; if (n == 2 || n == 3) sum += $2 } END { print sum }' "$work/out")
[ "$parts" = "$want" ] || why="$why pairs of the layers: $parts"
is "$(tape_field 2 rel_l2_error) > 0 && $(tape_field 3 rel_l2_error) < 1e-5" || why="$why errors: $(tape_field 2 rel_l2_error)"
[ "$(grep -c '"layer": 1' "$work/out")" -eq 6 ] || why="$why rows of layers: $(grep -c '"layer": 1' "$work/out")"
[ "$(sql "$work/a.db" "SELECT task, layers, examples, count(*) FROM results GROUP BY 1, 2, 3")" = "tape/lra/listops|2|3|3" ] || why="$why stored: $(sql "$work/a.db" "SELECT task, layers, examples FROM results")"
verdict tape__replayed__sums_and_layers_agree "$why"

run "$ICEBENCH_BIN" attn --tape "$t" --methods topk --rounds 1 --out "$work/o" -q
item=$(awk '/"example":/ { sub(",", "", $2); print $2; exit }' "$t/manifest.json")
[ -e "$work/o/x$item-l1/topk.o.npy" ] && [ -e "$work/o/x$item-l0/topk.idx.npy" ] && why="" || why="there is: $(find "$work/o")"
verdict tape__out__one_folder_a_call "$why"

# A model's own call and its replay are the same problem: plain files give the numbers of the tape's first call.
q="$t/x$item-l0"
run "$ICEBENCH_BIN" attn --q "$q.q.npy" --k "$q.k.npy" --v "$q.v.npy" --methods topk --rounds 1 --out "$work/p"
cmp "$work/p/topk.o.npy" "$work/o/x$item-l0/topk.o.npy" >"$work/err" 2>&1 && why="" || why="$(cat "$work/err")"
verdict tape__one_call_as_files__same_output "$why"

run "$ICEBENCH_BIN" dump "$work/x.yaml" --limit 3 --min-tokens 100 --dtype f2 --out "$work/half"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
awk '/"n":/ { sub(",", "", $2); if ($2 < 100) bad = 1 } END { exit bad }' "$work/half/manifest.json" || why="$why short examples"
run "$ICEBENCH_BIN" attn --tape "$work/half" --methods topk --set topk.k=4096 --rounds 1 --format json
is "$(tape_field 1 rel_l2_error) < 1e-5" || why="$why $(cat "$work/err")"
verdict dump__half_precision_of_long_examples__is_replayed "$why"

# --- prompts of a language model whose four query heads share two of keys

cat >"$work/m.yaml" <<END
name: tiny
out: $work/llama
tokenizer: tests/fuzz/corpus/fuzz_tokenizer/bytes.model
text: [README.md]
model: {width: 32, layers: 2, heads: 4, kv_heads: 2, mlp: 48, context: 4096}
length: 24
batch: 1
steps: 2
END
"$ICEBENCH_BIN" train "$work/m.yaml" -q
"$ICEBENCH_BIN" data make longeval/lines --seed 3 --lengths 1,3 --examples 3 --out "$work/data" -q
printf 'name: lines\ntask: longeval/lines\nlengths: [1, 3]\nmodel: %s\nanswer_tokens: 5\nthreads: 2\nmethods: [iceformer, dense]\n' "$work/llama" >"$work/w.yaml"
run "$ICEBENCH_BIN" dump "$work/w.yaml" --filter length=3 --limit 2 --out "$work/words"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
grep -q '"length": 3' "$work/words/manifest.json" && grep -q '"method": "dense"' "$work/words/manifest.json" || why="$why facts"
[ "$(ls "$work/words" | wc -l)" -eq 13 ] && [ "$(grep -c '"causal": true' "$work/words/manifest.json")" -eq 4 ] || why="$why calls: $(ls "$work/words")"
run "$ICEBENCH_BIN" dump "$work/w.yaml" --filter length=3 --limit 2 --out "$work/words2" -q
diff -r "$work/words" "$work/words2" >"$work/err" || why="$why twice: $(cat "$work/err")"
run "$ICEBENCH_BIN" attn --tape "$work/words" --methods dense,iceformer --set iceformer.k=4096 --rounds 1 --format json
grep -q '"hkv": 2' "$work/out" || why="$why heads of keys: $(cat "$work/err")"
want=$(awk '/"n":/ { sub(",", "", $2); sum += 4 * $2 * ($2 + 1) / 2 } END { printf "%d", sum }' "$work/words/manifest.json")
[ "$(tape_field 1 pairs)" = "$want" ] || why="$why pairs of dense: $(tape_field 1 pairs), expected $want"
is "$(tape_field 2 rel_l2_error) < 1e-5" || why="$why error of all keys: $(tape_field 2 rel_l2_error)"
# Of a prompt the first layer sees its own tokens alone, and both begin with the same words.
same=$(cmp -i 128 "$work/words/"x*-l0.k.npy | sed 's/.*byte \([0-9]*\),.*/\1/')
[ "${same:-0}" -gt 4000 ] || why="$why the keys of two prompts differ from byte $same on"
why="$why$(complains 7 "no example has 100000 tokens" dump "$work/w.yaml" --min-tokens 100000 --out "$work/new")"
why="$why$(complains 2 "do not fit into" dump "$work/w.yaml" --set context=64 --set answer_tokens=64 --out "$work/new")"
verdict dump__prompts__replayed_causally_with_shared_heads "$why"

# --- nothing by halves

why=""
before=$(cat "$t"/* | cksum)
why="$why$(complains 2 "exists; name a new folder" dump "$work/x.yaml" --out "$t")"
why="$why$(complains 2 "exists; name a new folder" dump "$work/x.yaml" --out "$work/x.yaml")"
[ "$(cat "$t"/* | cksum)" = "$before" ] || why="$why the old tape has changed"
why="$why$(complains 2 "no exact method" dump "$work/inexact.yaml" --out "$work/new")"
why="$why$(complains 7 "no example has 100000 tokens" dump "$work/x.yaml" --min-tokens 100000 --out "$work/new")"
why="$why$(complains 1 "not a folder" dump "$work/x.yaml" --out "$work/x.yaml/new")"
why="$why$(complains 2 "needs one file and a folder" dump "$work/x.yaml")"
why="$why$(complains 2 "--dtype = f8, allowed f4, f2" dump "$work/x.yaml" --out "$work/new" --dtype f8)"
why="$why$(complains 2 "--limit = 0" dump "$work/x.yaml" --out "$work/new" --limit 0)"
ls "$work" | grep -E '^new|part-' && why="$why left behind: $(ls "$work")"
# a file that cannot be written half way: the folder of the tape may hold no file beyond 64 KiB
(
  ulimit -f 8 2>/dev/null
  trap '' XFSZ
  "$ICEBENCH_BIN" dump "$work/x.yaml" --limit 8 --min-tokens 100 --out "$work/new" >"$work/out" 2>"$work/err"
)
[ $? -eq 1 ] && grep -q 'cannot be written' "$work/err" || why="$why full disk: $(cat "$work/err")"
ls "$work" | grep -E '^new|part-' && why="$why left behind: $(ls "$work")"
verdict dump__refused_or_broken_off__leaves_nothing "$why"

# --- damage

bad() { # SED-COMMAND TEXT: the manifest changed so, and what is said of it
  rm -rf "$work/bad"
  cp -r "$t" "$work/bad"
  sed "$1" "$t/manifest.json" >"$work/bad/manifest.json"
  why="$why$(complains 7 "$2" attn --tape "$work/bad")"
}
why=""
bad '1d' 'manifest.json:1:'
bad '40,$d' 'manifest.json:'
bad 's/icebench-tape/other-tape/' 'no manifest of a tape'
bad 's/"version": 1/"version": 2/' 'version = 2, this program reads 1'
bad 's/"calls"/"cells"/' 'calls must be a list'
bad 's/"layers": 2/"layers": 0/' 'layers = 0, allowed 1..1024'
bad 's/"layers": 2/"layers": 1/' 'call 1: layer = 1, allowed 0..0'
bad 's/"layer": 0/"layer": -1/' 'call 0: layer = -1'
bad 's/"layer": 0/"layer": "zero"/' 'call 0: '
bad 's/"causal": false/"causal": true/' 'call 0: checksum'
bad 's/"scale": .*,/"scale": -1,/' 'call 0: scale = -1, allowed numbers > 0'
bad 's/"scale": .*,/"scale": 1e-300,/' 'call 0: scale = 1e-300, allowed numbers > 0'
bad 's/"n": [0-9]*/"n": 7/' 'call 0: h = 2, n = 7'
bad 's/"mask": null/"mask": 7/' 'call 0: mask: allowed a file or null'
bad 's/"mask": null/"mask": "none.npy"/' 'none.npy'
bad "s|\"q\": \"x|\"q\": \"../tape/x|" "allowed a name in this folder"
bad "s|\"q\": \"x.*\"|\"q\": \"$t/manifest.json\"|" "allowed a name in this folder"
bad "s|\"v\": \"x.*\"|\"v\": \"..\"|" "allowed a name in this folder"
bad "s|\"k\": \"x.*\"|\"k\": \"\"|" "allowed a name in this folder"
rm -rf "$work/bad"; cp -r "$t" "$work/bad"
rm "$work/bad/x$item-l1.v.npy"
why="$why$(complains 7 "x$item-l1.v.npy" attn --tape "$work/bad")"
rm -rf "$work/bad"; cp -r "$t" "$work/bad"
printf 'Z' | dd of="$work/bad/x$item-l0.k.npy" bs=1 seek=200 conv=notrunc 2>/dev/null
why="$why$(complains 7 "call 0: checksum" attn --tape "$work/bad")"
rm -rf "$work/bad"; cp -r "$t" "$work/bad"
head -c 300 "$t/x$item-l0.q.npy" >"$work/bad/x$item-l0.q.npy"
why="$why$(complains 7 "x$item-l0.q.npy" attn --tape "$work/bad")"
why="$why$(complains 7 "manifest.json" attn --tape "$work")"
why="$why$(complains 2 "--tape has Q, K, V" attn --tape "$t" --causal)"
verdict tape__damaged__is_refused_with_its_place "$why"

exit $failed
