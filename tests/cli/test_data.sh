#!/bin/sh
# test_data.sh - verb data: making, listing, checking, and what each refuses.
. tests/cli/lib.sh
root="$work/data"
export ICEBENCH_DATA_DIR="$root"
bin=$ICEBENCH_BIN
case $bin in /*) ;; *) bin="$PWD/$bin" ;; esac
ICEBENCH_BIN=$bin
UNICODE=${UNICODE:-/usr/share/unicode}

if grep -qs '^# PropList-15\.0\.0' "$UNICODE/PropList.txt"; then
  awk -f datasets/translit.awk "$UNICODE/UnicodeData.txt" | cmp - datasets/translit.def 2>"$work/err" && why= || why=$(cat "$work/err")
  verdict translit_def__made_anew__same_bytes "$why"
else
  skipped translit_def__made_anew__same_bytes "there is no Unicode 15.0 in $UNICODE (apt-get install unicode-data)"
fi
cd "$work" || exit 1 # away from any datasets/data
folder="$root/lra/listops-1000"

why=
run "$bin" data make lra/listops --seed 7 --examples 30
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
for split in train val test; do
  [ "$(wc -l <"$folder/basic_$split.tsv")" -eq 31 ] || why="$why; basic_$split.tsv has not 31 lines"
  [ "$(head -n 1 "$folder/basic_$split.tsv")" = "$(printf 'Source\tTarget\r')" ] || why="$why; header of $split"
done
grep -q "$root" "$work/out" || why="$why; does not say where"
[ "$(ls -A "$folder" | wc -l)" -eq 4 ] || why="$why; left over: $(ls -A "$folder")"
verdict make__default_root__three_files_in_the_official_layout "$why"

why=
run "$bin" data make lra/listops --seed 7 --examples 30 --out other -q
[ "$code$(cat "$work/out" "$work/err")" = 0 ] || why="$code $(cat "$work/out" "$work/err")"
for split in train val test; do
  cmp -s "$folder/basic_$split.tsv" "other/lra/listops-1000/basic_$split.tsv" || why="$why; $split differs"
done
verdict make__same_seed__same_bytes_and_quiet "$why"

why=
run "$bin" data check lra/listops
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
[ "$(grep -c '30 examples of .*, generated$' "$work/out")" -eq 3 ] || why="$why; $(cat "$work/out")"
grep -q 'repeated examples: 0 within a split, 0 across splits' "$work/out" || why="$why; repeats"
verdict check__generated__fine "$why"

why=
run "$bin" data list
[ "$code" -eq 0 ] || why="exit code $code"
[ "$(sed '/^synth/,$d' "$work/out" | grep -c "  30  generated, $folder/basic_")" -eq 3 ] || why="$why; $(cat "$work/out")"
verdict list__generated__counts_and_files "$why"

# A label that the expression does not have, in a set whose record knows no checksums.
echo '{"complete": true}' >"$folder/generated.json"
sed -i '3s/[0-9]\r$/X&/; 3s/X0/5/; 3s/X[0-9]/0/' "$folder/basic_test.tsv"
why=$(complains 7 "example 2 of test: label" data check lra/listops)
verdict check__wrong_label__named "$why"
rm "$folder/generated.json" # now it passes for an official one
why=$(complains 2 "choose another folder with --out" data make lra/listops --seed 8 --examples 3)
echo '{"complete": true}' >"$folder/generated.json"
verdict make__files_not_generated__left_alone "$why"

cp "$folder/basic_val.tsv" "$folder/basic_test.tsv"
run "$bin" data check lra/listops
why=
[ "$code" -eq 0 ] && grep -q 'repeated examples: 0 within a split, 30 across splits' "$work/out" || why="$code $(cat "$work/out")"
verdict check__splits_overlap__counted "$why"

printf 'Source\tTarget\n( [AVG 1 ) ] )\t1\n' >"$folder/basic_test.tsv"
verdict check__unknown_token__named "$(complains 7 "basic_test.tsv:2: unknown token '[AVG'" data check lra/listops)"
rm "$folder/basic_test.tsv"
verdict check__split_missing__named "$(complains 7 "basic_test.tsv: missing beside" data check)"

# A set with a list of checksums beside it; whole, short of one review, of another balance.
mkdir -p sums/lra/text
awk 'BEGIN { for (i = 0; i < 25000; i++) print i % 2 "\treview " i }' >sums/lra/text/test.tsv
awk 'BEGIN { for (i = 0; i < 25000; i++) print i % 2 "\tother " i }' >sums/lra/text/train.tsv
(cd sums && sha256sum lra/text/*.tsv >SHA256SUMS)
export ICEBENCH_DATA_DIR="$work/sums"
run "$bin" data check lra/text
why=
[ "$code" -eq 0 ] && [ "$(grep -c 'SHA-256 as in' "$work/out")" -eq 3 ] || why="$code $(cat "$work/out" "$work/err")"
verdict check__sums_counts_balance__fine "$why"
sed -i '1s/review/Review/' sums/lra/text/test.tsv
verdict check__wrong_sum__refused_with_both "$(complains 7 "$(sha256sum sums/lra/text/test.tsv | cut -d ' ' -f 1), $work/sums/SHA256SUMS says $(sed -n 's/ .*test.tsv//p' sums/SHA256SUMS)" data check lra/text)"
rm sums/SHA256SUMS
sed -i '1s/^0/1/' sums/lra/text/test.tsv
verdict check__other_balance__refused "$(complains 7 "12499 examples of class 0 in val, the release has 12500" data check lra/text)"
sed -i 1d sums/lra/text/test.tsv
verdict check__other_count__refused "$(complains 7 "24999 examples in val, the release has 25000" data check lra/text-1k)"

export ICEBENCH_DATA_DIR="$work/nowhere"
verdict check__named_and_absent__data_missing "$(complains 7 "icebench data make lra/listops" data check lra/listops)"
verdict check__nothing_anywhere__data_missing "$(complains 7 "data list" data check)"
run "$bin" data list
why=
[ "$code" -eq 0 ] && [ "$(grep -c 'absent$' "$work/out")" -ge 6 ] && grep -q 'data make lra/listops' "$work/out" || why="$code $(cat "$work/out")"
verdict list__nothing_anywhere__says_what_to_do "$why"

# A root that forbids writing is passed over, even for root.
mkdir "$work/readonly" && chmod 555 "$work/readonly"
why=
ICEBENCH_DATA_DIR="$work/readonly:$work/second/new" run "$bin" data make lra/listops --examples 2 -q
[ "$code" -eq 0 ] && [ -e "$work/second/new/lra/listops-1000/basic_test.tsv" ] || why="$code $(cat "$work/err")"
verdict make__first_root_read_only__takes_the_next "$why"

# Interrupted: 130, nothing of it is read, and the same command mends it.
why=
"$bin" data make lra/listops --out cut -q >"$work/out" 2>"$work/err" &
maker=$!
while [ ! -e cut/lra/listops-1000/generated.json ]; do sleep 0.01; done
kill -INT $maker 2>/dev/null
wait $maker
code=$?
if [ "$code" -eq 0 ]; then
  why="finished before it could be interrupted"
else
  [ "$code" -eq 130 ] && grep -q 'run the same command again' "$work/err" || why="$code $(cat "$work/err")"
  [ -z "$(find cut -name '.*tsv*')" ] || why="$why; left over: $(find cut -name '.*')"
  export ICEBENCH_DATA_DIR="$work/cut"
  mess=$(complains 7 interrupted data check lra/listops)
  why="$why$mess"
  run "$bin" data make lra/listops --examples 2 --out cut -q
  run "$bin" data check lra/listops
  [ "$code" -eq 0 ] || why="$why; not mended: $(cat "$work/err")"
fi
verdict make__interrupted__not_read_and_mended_by_the_same_command "$why"

# Killed: the next run removes what was left behind.
why=
"$bin" data make lra/listops --out killed -q >"$work/out" 2>"$work/err" &
maker=$!
while [ -z "$(find killed -name '.basic_*' 2>/dev/null)" ] && kill -0 $maker 2>/dev/null; do sleep 0.01; done
kill -9 $maker
wait $maker 2>/dev/null
[ -n "$(find killed -name '.basic_*')" ] || why="nothing was left to remove"
run "$bin" data make lra/listops --examples 2 --out killed -q
[ "$code" -eq 0 ] && [ -z "$(find killed -name '.basic_*')" ] || why="$why; $code left over: $(find killed -name '.*')"
verdict make__killed__the_next_run_cleans_up "$why"

verdict make__no_task__usage "$(complains 2 "needs a task" data make)"
verdict make__unknown_task__known_ones_named "$(complains 2 "lra/listops" data make lra/listop)"
verdict make__what_is_only_cut__says_from_what "$(complains 7 "cut from lra/listops" data make synth/listops-pieces)"
verdict make__bad_seed__range_named "$(complains 2 "--seed = -1, allowed 0.." data make lra/listops --seed -1)"
verdict make__bad_examples__range_named "$(complains 2 "--examples = 0, allowed 1.." data make lra/listops --examples 0)"
verdict make__empty_folder_name__refused "$(complains 2 "--out is empty" data make lra/listops --out=)"
verdict make__file_in_the_way__named "$(complains 1 "$work/out" data make lra/listops --examples 1 --out "$work/out")"
verdict list__option_of_make__refused "$(complains 2 "takes no --seed" data list --seed 3)"
verdict check__unknown_task__refused "$(complains 2 "unknown task" data check nothing)"
verdict fetch__absent__says_what_to_do "$(complains 7 "put the file at $work/new/lra/lra_release.gz by hand" data fetch lra/listops --out "$work/new" --from file:///nowhere/x)"
verdict fetch__what_is_only_cut__usage "$(complains 2 "is not downloaded" data fetch synth/listops-pieces)"
verdict fetch__option_of_make__refused "$(complains 2 "takes no --seed" data fetch lra/listops --seed 3)"
# The set made above, in the layout of the release.
run "$bin" data make lra/listops --examples 3 --out made -q
mkdir -p pack/lra_release/lra_release && cp -r made/lra/listops-1000 pack/lra_release/lra_release/ && rm pack/lra_release/lra_release/listops-1000/generated.json
tar -czf release.gz -C pack lra_release
run "$bin" data fetch lra/listops --out fetched --from "file://$work/release.gz"
why=
[ "$code" -eq 0 ] && cmp -s made/lra/listops-1000/basic_test.tsv fetched/lra/listops-1000/basic_test.tsv || why="$code $(cat "$work/err")"
[ "$(find fetched -type f | wc -l)" -eq 4 ] || why="$why; $(find fetched)"
ICEBENCH_DATA_DIR=fetched run "$bin" data check lra/listops
grep -q '3 examples of .*, official$' "$work/out" || why="$why; $(cat "$work/out" "$work/err")"
run "$bin" data fetch lra/listops --out fetched --from file:///nowhere/x
[ "$code" -eq 0 ] && grep -q 'there already' "$work/out" || why="$why; again: $code $(cat "$work/err")"
verdict fetch__release_from_a_file__unpacked_and_official "$why"
verdict fetch__generated_set_in_the_way__refused "$(complains 2 "in the way" data fetch lra/listops --out made --from "file://$work/release.gz")"
verdict fetch__no_task__usage "$(complains 2 "needs a task" data fetch)"
verdict data__unknown_action__allowed_ones_named "$(complains 2 "list, make, fetch, check" data destroy)"
verdict data__too_many_words__refused "$(complains 2 "" data check lra/listops more)"
exit "$failed"
