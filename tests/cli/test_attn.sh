#!/bin/sh
# test_attn.sh - verb attn: numbers, files, masks, plug-ins, and everything it refuses.
. tests/cli/lib.sh
s="$work/s"
synth=clustered:h=2,n=512,d=32,seed=1

# --- the numbers

run "$ICEBENCH_BIN" attn --synth clustered:h=2,n=1024,d=32,seed=1 --methods vanilla,dense,topk --rounds 2 --format json
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
is "$(field "$work/out" 1 rel_l2_error) <= 1e-5" || why="$why vanilla differs from dense"
is "$(field "$work/out" 1 rel_l2_error) > 0" || why="$why vanilla was not compared"
is "$(field "$work/out" 2 speedup_dense) == 1 && $(field "$work/out" 2 speedup_dense_hi) == 1" || why="$why dense against itself is not 1"
is "$(field "$work/out" 3 recall) == 1" || why="$why recall of topk is not 1"
is "$(field "$work/out" 3 mass) > 0.5 && $(field "$work/out" 3 mass) < 1" || why="$why mass of topk is $(field "$work/out" 3 mass)"
[ "$(field "$work/out" 1 mass)" = null ] || why="$why vanilla has a mass"
[ "$(field "$work/out" 3 pairs)" = $((2 * 1024 * 1024)) ] || why="$why pairs of topk: $(field "$work/out" 3 pairs)"
verdict numbers__three_methods__agree_with_dense "$why"

run "$ICEBENCH_BIN" attn --synth "$synth" --methods topk --rounds 2 --no-color
why=""
[ "$code" -eq 0 ] || why="exit code $code"
grep -q 'x vanilla.*x dense' "$work/out" || why="$why no speed-ups"
[ "$(grep -c '^topk ' "$work/out")" -eq 1 ] || why="$why no row of topk"
grep -q '^dense ' "$work/out" && why="$why dense was not asked for"
verdict text__one_method__shows_both_speedups "$why"

run "$ICEBENCH_BIN" attn --synth "$synth" --methods dense,topk --set 'topk.k=8|16|32' --rounds 2 --format json
why=""
for i in 3 4; do is "$(field "$work/out" $i mass) > $(field "$work/out" $((i - 1)) mass)" || why="$why mass does not grow with k"; done
[ "$(field "$work/out" 2 build_ns)" = "$(field "$work/out" 4 build_ns)" ] || why="$why the build is not shared"
grep -q '"k": 16' "$work/out" || why="$why no k = 16"
verdict sweep__late_parameter__shares_the_build "$why"

run "$ICEBENCH_BIN" attn --synth clustered:h=1,n=512,d=32 --methods dense,icecells --set 'icecells.dense_below=256|1024' --rounds 1 --format json
why=""
[ "$(field "$work/out" 2 path)" = null ] && [ "$(field "$work/out" 3 path)" = '"dense"' ] || why="paths: $(grep '"path"' "$work/out") $(cat "$work/err")"
is "$(field "$work/out" 2 rel_l2_error) > 0 && $(field "$work/out" 3 rel_l2_error) == 0" || why="$why errors: $(grep '"rel_l2_error"' "$work/out")"
run "$ICEBENCH_BIN" attn --synth clustered:h=1,n=64,d=8 --methods icecells --rounds 1
grep -q '^icecells  *(as dense)' "$work/out" || why="$why text: $(cat "$work/out")"
verdict path__a_method_that_is_dense__says_so "$why"

run "$ICEBENCH_BIN" attn --synth "$synth,causal=1" --methods dense,topk --set topk.k=512 --rounds 1 --format json
is "$(field "$work/out" 2 rel_l2_error) < 1e-5 && $(field "$work/out" 2 mass) > 0.99999" && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
verdict causal__all_keys__is_exact "$why"

run "$ICEBENCH_BIN" attn --synth "$synth" --methods dense,topk --rounds 1 --threads 1 --roofline --format json
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
is "$(field "$work/out" 1 flops) == 2 * 64 * 2 * 512 * 512 && $(field "$work/out" 1 bytes_at_least) == 4 * 4 * 2 * 512 * 32" || why="$why work of dense: $(field "$work/out" 1 flops), $(field "$work/out" 1 bytes_at_least)"
is "$(field "$work/out" 2 share) > 0" || why="$why shares: $(cat "$work/out")"
[ "$(grep -c '"fma_gflops": [0-9]' "$work/out")" -eq 2 ] || why="$why limits: $(cat "$work/out")"
run "$ICEBENCH_BIN" attn --synth "$synth" --methods dense --rounds 1 --threads 2 --roofline
grep -q '^dense .*compute\|^dense .*memory' "$work/out" && grep -q '^2  .*GF/s' "$work/out" || why="$why text: $(cat "$work/out" "$work/err")"
verdict roofline__work_and_limits__are_reported "$why"

# --- files

run "$ICEBENCH_BIN" attn --synth "$synth" --methods dense,topk --set topk.k=8 --rounds 1 --threads 1 --out "$s/one"
run "$ICEBENCH_BIN" attn --synth "$synth" --methods dense,topk --set topk.k=8 --rounds 1 --threads 2 --out "$s/two"
why=""
for f in dense.o topk.o topk.idx; do cmp "$s/one/$f.npy" "$s/two/$f.npy" >"$work/err" 2>&1 || why="$why $(cat "$work/err")"; done
[ "$(wc -c <"$s/one/topk.idx.npy")" -eq $((128 + 2 * 512 * 8 * 4)) ] || why="$why topk.idx.npy has $(wc -c <"$s/one/topk.idx.npy") bytes"
[ ! -e "$s/one/vanilla.o.npy" ] || why="$why vanilla was not asked for"
verdict out__one_and_two_threads__same_bytes "$why"

run "$ICEBENCH_BIN" attn --synth "$synth" --methods topk --set 'topk.k=8|9' --rounds 1 --out "$s/sweep"
[ -e "$s/sweep/topk@k=8.o.npy" ] && [ -e "$s/sweep/topk@k=9.idx.npy" ] && why="" || why="there is only: $(ls "$s/sweep")"
verdict out__sweep__names_carry_the_values "$why"

x="$s/one/dense.o.npy"
run "$ICEBENCH_BIN" attn --q "$x" --k "$x" --v "$x" --methods vanilla,dense --rounds 1 --format json
is "$(field "$work/out" 1 rel_l2_error) < 1e-5" && grep -q '"nk": 512' "$work/out" && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
verdict files__written_tensors__can_be_read "$why"

# Masks [N] that drop key 3, and a K whose row 3 is NaN in head 1 (after 128 bytes of header).
mask() {
  printf '\223NUMPY\001\000\166\000'
  printf "%-117s\n" "{'descr': '|u1', 'fortran_order': False, 'shape': ($1,), }"
  printf '\001\001\001\000'
  head -c $(($1 - 4)) /dev/zero | tr '\000' '\001'
}
mask 512 >"$work/mask.npy"
mask 511 >"$work/mask511.npy"
cp "$x" "$work/nan.npy"
printf '\000\000\300\177' | dd of="$work/nan.npy" bs=1 seek=$((128 + (512 * 32 + 3 * 32 + 5) * 4)) conv=notrunc 2>/dev/null
verdict files__nan_in_a_visible_key__is_refused_with_its_place "$(complains 7 "$work/nan.npy: nan at batch 0, head 1, row 3, column 5" attn --q "$x" --k "$work/nan.npy" --v "$x")"
run "$ICEBENCH_BIN" attn --q "$x" --k "$work/nan.npy" --v "$x" --mask "$work/mask.npy" --methods vanilla,dense,topk --rounds 1 --format json
is "$(field "$work/out" 1 rel_l2_error) < 1e-5 && $(field "$work/out" 3 recall) == 1" && grep -q '"kept_keys": 511' "$work/out" && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
verdict files__nan_under_the_mask__is_ignored "$why"

# A scalar has no shape to show but is shown.
{
  printf '\223NUMPY\001\000\166\000'
  printf "%-117s\n" "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"
  printf '\0\0\0\0'
} >"$work/scalar.npy"
verdict files__a_scalar__is_refused_with_its_shape "$(complains 7 "scalar.npy: shape []" attn --q "$work/scalar.npy" --k "$work/scalar.npy" --v "$work/scalar.npy")"
# Finite numbers whose products are not: a failed row, never an "ok" without numbers.
{
  printf '\223NUMPY\001\000\166\000'
  printf "%-117s\n" "{'descr': '<f4', 'fortran_order': False, 'shape': (32, 8), }"
  for i in 1 2 3 4 5 6 7 8; do head -c 128 /dev/zero | sed 's/\x0\x0\x0\x0/\xff\xff\x7f\x7f/g'; done
} >"$work/huge.npy"
run "$ICEBENCH_BIN" attn --q "$work/huge.npy" --k "$work/huge.npy" --v "$work/huge.npy" --methods vanilla,dense,topk --rounds 1 --format json
why=""
[ "$code" -eq 3 ] || why="exit code $code $(cat "$work/err")"
[ "$(grep -c '"status": "failed"' "$work/out")" -eq 3 ] && [ "$(grep -c '"reason": ".*not finite' "$work/out")" -eq 3 ] || why="$why $(grep '"status"\|"reason"' "$work/out")"
verdict files__finite_numbers_that_overflow__are_failed_rows "$why"

why=""
for f in q k v; do
  set -- --q "$x" --k "$x" --v "$x" "--$f" "$work/none.npy"
  why="$why$(complains 7 "none.npy" attn "$@")"
done
head -c 100 "$x" >"$work/short.npy"
why="$why$(complains 7 "short.npy" attn --q "$work/short.npy" --k "$x" --v "$x")"
why="$why$(complains 7 "mask.npy" attn --q "$work/mask.npy" --k "$x" --v "$x")"
why="$why$(complains 7 "mask511.npy: shape [511], allowed [512] or [1,512]" attn --synth clustered:n=512,d=8 --mask "$work/mask511.npy")"
verdict files__missing_short_or_of_another_kind__exit_code_7 "$why"

# --- refusals

why=""
try() { why="$why$(complains 2 "$@")"; }
try "needs --q, --k and --v" attn
try "needs --q, --k and --v" attn --q "$x" --k "$x"
try "leave --q, --k, --v away" attn --synth gauss --q "$x"
try "unknown source 'nonsense'" attn --synth nonsense
try "n = 0, allowed whole numbers" attn --synth gauss:n=0
try "unknown method nope" attn --synth gauss:n=8 --methods nope
try "did you mean dense" attn --synth gauss:n=8 --methods dens
try "unknown method " attn --synth gauss:n=8 --methods dense,,topk
try "dense stands twice" attn --synth gauss:n=8 --methods dense,dense
try "expected METHOD.PARAMETER=VALUE" attn --synth gauss:n=8 --set k=8
try "expected METHOD.PARAMETER=VALUE" attn --synth gauss:n=8 --set topk
try "unknown parameter of topk kk" attn --synth gauss:n=8 --methods topk --set topk.kk=8
try "topk.k = 0, allowed whole numbers" attn --synth gauss:n=8 --methods topk --set topk.k=0
try "topk.k = 8x, allowed" attn --synth gauss:n=8 --methods topk --set topk.k=8x
try "topk.k = , allowed" attn --synth gauss:n=8 --methods topk --set 'topk.k=8|'
try "set twice" attn --synth gauss:n=8 --methods topk --set topk.k=8,topk.k=9
try "topk is not among --methods" attn --synth gauss:n=8 --methods dense --set topk.k=8
try "--rounds = 0, allowed 1..1000" attn --synth gauss:n=8 --rounds 0
try "--rounds = 9999999999999999999999" attn --synth gauss:n=8 --rounds 9999999999999999999999
try "--threads = -1, allowed 1..256" attn --synth gauss:n=8 --threads -1
try "--seed = x" attn --synth gauss:n=8 --seed x
try "--max-seconds = nan" attn --synth gauss:n=8 --max-seconds nan
try "--limit-seconds = 0, allowed" attn --synth gauss:n=8 --limit-seconds 0
try "--format = xml, allowed text, json" attn --synth gauss:n=8 --format xml
try "unexpected argument" attn --synth gauss:n=8 surplus
try "did you mean --methods" attn --synth gauss:n=8 --method dense
try "GiB" attn --synth gauss:h=4096,n=65536,d=64
try "no such file" attn --synth gauss:n=8 --plugin "$work/none.so"
ICEBENCH_THREADS=zero try "\$ICEBENCH_THREADS = zero, allowed 1..256" attn --synth gauss:n=8
verdict options__hostile_values__one_line_and_exit_code_2 "$why"

echo file >"$work/file"
why=""
for target in "$work/file/below" "$work/file" /dev/null /proc/none; do try "--out $target" attn --synth gauss:n=8 --methods dense --rounds 1 --out "$target"; done
[ -s "$work/out" ] && why="$why measured for nothing: $(cat "$work/out")"
verdict out__not_a_folder__fails_before_anything_is_measured "$why"

# --- plug-ins

if ${CC:-cc} -O2 -fPIC -shared -I. docs/plugin.c -o "$work/window.so" -lm 2>"$work/err"; then
  run "$ICEBENCH_BIN" attn --synth gauss:h=2,n=256,d=16 --plugin "$work/window.so" --methods dense,my_window --set 'my_window.k=16|256' --rounds 1 --format json
  is "$(field "$work/out" 2 rel_l2_error) > 0.1 && $(field "$work/out" 3 rel_l2_error) < 1e-5 && $(field "$work/out" 3 mass) > 0.99999" && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
  verdict plugin__the_example__is_timed_beside_ours "$why"
  why=""
  printf 'int nothing;\n' >"$work/a.c"
  printf '#include "kernels/attn.h"\nconst attn_method *icebench_plugin(uint32_t abi);\nconst attn_method *icebench_plugin(uint32_t abi) { return (void)abi, (const attn_method *)0; }\n' >"$work/b.c"
  printf '#include "kernels/attn.h"\nstatic const attn_method m = {.name = "no name"};\nconst attn_method *icebench_plugin(uint32_t abi);\nconst attn_method *icebench_plugin(uint32_t abi) { return (void)abi, &m; }\n' >"$work/c.c"
  sed 's/"my_window", *$/"my_window",/; s/\.name = "my_window"/.name = "dense"/' docs/plugin.c >"$work/d.c"
  for f in a b c d; do ${CC:-cc} -O1 -fPIC -shared -I. "$work/$f.c" -o "$work/$f.so" -lm; done
  try "there is a method dense already" attn --synth gauss:n=8 --plugin "$work/d.so"
  try "there is a method my_window already" attn --synth gauss:n=8 --plugin "$work/window.so" --plugin "$work/window.so"
  verdict plugin__name_that_is_taken__is_refused "$why"
  # What cannot be used costs one row: dense is measured all the same.
  why=""
  costs() { # TEXT OPTIONS...: the row of method my_window failed with TEXT, that of dense is fine
    text=$1
    shift
    run "$ICEBENCH_BIN" attn --synth gauss:h=2,n=64,d=8 --methods dense,my_window --set my_window.k=8 --rounds 2 --format json "$@"
    [ "$code" -eq 3 ] || why="$why exit code $code ($text): $(cat "$work/err")"
    [ "$(field "$work/out" 1 status)" = '"ok"' ] && [ "$(field "$work/out" 2 status)" = '"failed"' ] || why="$why not one row ($text): $(cat "$work/out")"
    is "$(field "$work/out" 1 rel_l2_error) == 0 && $(field "$work/out" 1 attention_ns) > 0" || why="$why dense was not measured ($text)"
    grep -F '"reason"' "$work/out" | tail -n 1 | grep -qF -- "$text" || why="$why expected '$text': $(grep -F '"reason"' "$work/out")"
  }
  costs "no function" --plugin "$work/a.so"
  costs "refuses version" --plugin "$work/b.so"
  costs "method name no name" --plugin "$work/c.so"
  costs "cannot be loaded" --plugin "$work/file"
  printf '#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n' >"$work/e.c"
  sed 's/^  uint64_t pairs = 0;/&\n  *(volatile int *)8 = 1;/' docs/plugin.c >"$work/f.c"
  sed 's/^  uint64_t pairs = 0;/&\n  for (volatile int i = 0; i >= 0;) i = 1;/' docs/plugin.c >"$work/g.c"
  sed 's/^  if (st) st->pairs = pairs;/  out.p[11 * out.sn + 3] = NAN;\n&/' docs/plugin.c >"$work/h.c"
  sed 's/id\[j\] = (int32_t)(first + j);/id[j] = -5;/' docs/plugin.c >"$work/i.c"
  sed 's/return abi == ATTN_ABI/return abi == ATTN_ABI + 1/' docs/plugin.c >"$work/j.c"
  for f in e f g h i j; do ${CC:-cc} -O1 -fPIC -shared -I. "$work/$f.c" -o "$work/$f.so" -lm 2>"$work/err" || why="$why $(cat "$work/err")"; done
  costs "loading: crashed with" --plugin "$work/e.so"
  costs "build and forward: crashed with" --plugin "$work/f.so"
  costs "build and forward: no end after 0.3 s" --plugin "$work/g.so" --limit-seconds 0.3
  costs "not finite at batch 0, head 0, row 11" --plugin "$work/h.so"
  costs "a key that is out of range" --plugin "$work/i.so"
  costs "refuses version" --plugin "$work/j.so"
  verdict plugin__broken__costs_one_row_with_its_reason "$why"
  # A method that leaves a trace, and one that puts a folder in the place of the database.
  sed "s|^  uint64_t pairs = 0;|&\n  FILE *trace = fopen(\"$work/trace\", \"w\");\n  if (trace) (void)fclose(trace);|; 1i #include <stdio.h>" docs/plugin.c >"$work/k.c"
  sed "s|^  uint64_t pairs = 0;|&\n  (void)unlink(\"$work/gone.db\");\n  (void)mkdir(\"$work/gone.db\", 0700);|; 1i #include <unistd.h>\n#include <sys/stat.h>" docs/plugin.c >"$work/l.c"
  why=""
  for f in k l; do ${CC:-cc} -O1 -fPIC -shared -I. "$work/$f.c" -o "$work/$f.so" -lm 2>"$work/err" || why="$why $(cat "$work/err")"; done
  set -- attn --synth gauss:h=2,n=64,d=8 --methods dense,my_window --rounds 1
  try "--out $work/file" "$@" --plugin "$work/k.so" --out "$work/file"
  why="$why$(complains 8 "$work/file" "$@" --plugin "$work/k.so" --save --db "$work/file")"
  [ ! -e "$work/trace" ] || why="$why measured in vain"
  run "$ICEBENCH_BIN" "$@" --plugin "$work/k.so" --save --db "$work/k.db" --out "$work/k"
  [ "$code" -eq 0 ] && [ -e "$work/trace" ] || why="$why no trace: $(cat "$work/err")"
  verdict targets__that_cannot_be_written__found_before_measuring "$why"
  why=$(complains 8 "gone.db: not a regular file" "$@" --plugin "$work/l.so" --save --db "$work/gone.db")
  grep -q '^my_window ' "$work/out" || why="$why the numbers are lost: $(cat "$work/out")"
  verdict save__that_fails__after_the_numbers_were_printed "$why"
  # the window has no grouped queries and says so in its row
  why=$(complains 3 "1 of 1 rows failed" attn --synth gauss:h=2,n=256,hkv=1,d=16 --plugin "$work/window.so" --methods my_window --rounds 1)
  verdict plugin__unsupported_problem__is_a_row_with_its_reason "$why"
else
  skipped plugin__the_example__is_timed_beside_ours "no compiler for plug-ins: $(head -n 1 "$work/err")"
fi

# --- store

run "$ICEBENCH_BIN" attn --synth gauss:n=64,d=8 --methods dense,topk --rounds 1 --save --db "$work/a.db"
[ "$code" -eq 0 ] && [ -s "$work/a.db" ] && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
run "$ICEBENCH_BIN" attn --synth gauss:n=64,d=8 --methods dense,topk --rounds 1 --save --db "$work/a.db"
[ "$code" -eq 0 ] || why="$why again: $code $(cat "$work/err")"
why="$why$(complains 8 "$work/file" attn --synth gauss:n=64,d=8 --methods dense --rounds 1 --save --db "$work/file")"
verdict save__twice_and_into_no_database__stores_or_exit_code_8 "$why"

exit $failed
