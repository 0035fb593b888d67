#!/bin/sh
# test_train.sh - verb train as users meet it: a small ListOps, killed, interrupted, resumed, refused.
. tests/cli/lib.sh
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data"

# recipe DIR LINES: DIR.yaml, which trains into DIR
recipe() {
  printf 'name: tiny\ntask: lra/listops\nout: %s/model.safetensors\nbatch: 2\nwarmup: 2\nsave_every: 2\neval_every: 4\n%s\n' \
    "$1" "$2" >"$1.yaml"
}
train() { run "$ICEBENCH_BIN" train "$@"; }
start() { # FILE OPTIONS: in the background, as $pid
  "$ICEBENCH_BIN" train "$@" >"$work/out" 2>"$work/err" </dev/null &
  pid=$!
}
# await_state DIR MARK: until the state of DIR is newer than MARK, or the run has ended
await_state() { while kill -0 $pid 2>/dev/null && ! [ "$1/model.safetensors.state" -nt "$2" ]; do sleep 0.02; done; }
differs() { # DIR: from the whole run
  cmp "$work/whole/model.safetensors" "$1/model.safetensors" 2>&1
  cmp "$work/whole/model.log.csv" "$1/model.log.csv" 2>&1
  [ -e "$1/model.safetensors.state" ] && echo "a state is left"
}

recipe "$work/whole" 'steps: 12
threads: 1'
train "$work/whole.yaml"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
files=$(ls -A "$work/whole" | tr '\n' ' ')
[ "$files" = "model.log.csv model.safetensors " ] || why="$why files: $files"
tail -n 1 "$work/whole/model.log.csv" | grep -q '^12,.*,.*,[0-9.]*$' || why="$why log ends in $(tail -n 1 "$work/whole/model.log.csv")"
verdict train__whole_run__leaves_checkpoint_and_log "$why"

recipe "$work/two" 'steps: 12
threads: 2'
train "$work/two.yaml"
verdict train__two_threads__same_bytes "$(differs "$work/two")"

# kill -9 whenever there is a new state, until a run gets through; whether it was killed or not, the bytes are the same
recipe "$work/killed" 'steps: 12
threads: 2'
touch -d '1 January 2000' "$work/mark"
for round in 1 2 3 4 5 6 7 8; do
  start "$work/killed.yaml" --resume
  await_state "$work/killed" "$work/mark"
  kill -9 $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ -e "$work/killed/model.safetensors.state" ] || break
  touch -r "$work/killed/model.safetensors.state" "$work/mark"
done
train "$work/killed.yaml" --resume
verdict train__killed_again_and_again__same_bytes "$(differs "$work/killed")"
train "$work/killed.yaml" --resume
verdict train__resume_of_a_complete_run__changes_nothing "$(differs "$work/killed")"

recipe "$work/long" 'steps: 1000000
threads: 2'
start "$work/long.yaml"
await_state "$work/long" "$work/mark"
kill -INT $pid
wait $pid
code=$? why=""
[ $code -eq 130 ] || why="exit code $code"
[ -s "$work/long/model.safetensors.state" ] || why="$why no state"
grep -q -e '--resume' "$work/err" || why="$why it says $(cat "$work/err")"
verdict train__interrupted__saves_and_exits_130 "$why"

cp "$work/long/model.safetensors.state" "$work/kept"
why=$(complains 2 "--resume, or start anew with --force" train "$work/long.yaml")
cmp -s "$work/long/model.safetensors.state" "$work/kept" || why="$why the state changed"
verdict train__state_there_and_nothing_said__refused_and_kept "$why"
verdict train__resume_and_force__refused "$(complains 2 "choose one" train "$work/long.yaml" --resume --force)"
start "$work/long.yaml" --resume
await_state "$work/long" "$work/kept"
kill -TERM $pid
wait $pid
code=$? why=""
[ $code -eq 143 ] || why="exit code $code"
cmp -s "$work/long/model.safetensors.state" "$work/kept" && why="$why it did not go on"
verdict train__terminated__saves_and_exits_143 "$why"

cp "$work/long/model.safetensors.state" "$work/kept"
sed 's/1000000/999999/' "$work/long.yaml" >"$work/other.yaml"
why=$(complains 2 "belongs to another training" train "$work/other.yaml" --resume)
cmp -s "$work/long/model.safetensors.state" "$work/kept" || why="$why the state changed"
verdict train__state_of_another_recipe__refused_and_kept "$why"
head -c 1000 "$work/kept" >"$work/long/model.safetensors.state"
verdict train__damaged_state__refused "$(complains 7 model.safetensors.state train "$work/long.yaml" --resume)"

recipe "$work/further" "steps: 12
threads: 1
init: $work/whole/model.safetensors"
train "$work/further.yaml"
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
cmp -s "$work/whole/model.safetensors" "$work/further/model.safetensors" && why="$why the start made no difference"
verdict train__weights_to_start_from__are_used "$why"
recipe "$work/wrong" "steps: 8
init: $work/absent.safetensors"
verdict train__absent_weights_to_start_from__refused "$(complains 7 absent.safetensors train "$work/wrong.yaml")"
recipe "$work/wrong" "steps: 8
init: $work/whole/model.log.csv"
verdict train__log_as_weights_to_start_from__refused "$(complains 7 model.log.csv train "$work/wrong.yaml")"

# The other tasks: bytes, pairs of texts, pixels with black ones in between.
mkdir -p "$work/more/lra/text"
for split in train test; do
  awk -v s=$split 'BEGIN { for (i = 0; i < 200; i++) print i % 2 "\t" s " review " i (i % 2 ? " good" : " bad") }' >"$work/more/lra/text/$split.tsv"
done
"$ICEBENCH_BIN" data make lra/pathfinder-easy --examples 8 --out "$work/more" -q
why=""
for task in text-1k retrieval-imdb pathfinder-easy; do
  printf 'name: tiny\ntask: lra/%s\nout: %s/m.safetensors\nbatch: 2\nsteps: 4\nwarmup: 2\neval_every: 2\ndev_examples: 1\nthreads: 1\n' \
    $task "$work/$task" >"$work/$task.yaml"
  ICEBENCH_DATA_DIR="$work/more" run "$ICEBENCH_BIN" train "$work/$task.yaml" -q
  [ "$code" -eq 0 ] || why="$why $task: exit code $code: $(cat "$work/err")"
  grep -q '^4,.*,[01].000000$' "$work/$task/m.log.csv" || why="$why $task: log $(cat "$work/$task/m.log.csv")"
done
verdict train__every_kind_of_task__trains_and_evaluates_a_part_of_dev "$why"

recipe "$work/wrong" 'steps: 8
stepps: 9'
verdict train__unknown_key__refused_with_line "$(complains 2 "wrong.yaml:9" train "$work/wrong.yaml")"
recipe "$work/wrong" 'steps: 8
method: icecells'
verdict train__method_without_training__refused "$(complains 2 "icecells" train "$work/wrong.yaml")"
recipe "$work/wrong" 'steps: 1'
verdict train__too_few_steps__refused "$(complains 2 "steps" train "$work/wrong.yaml")"
verdict train__no_file__refused "$(complains 2 "needs one file" train)"
verdict train__absent_file__refused "$(complains 2 "absent.yaml" train "$work/absent.yaml")"
recipe "$work/wrong" 'steps: 8'
export ICEBENCH_DATA_DIR="$work/nowhere"
cd "$work" # datasets/data of the tree may hold the task
verdict train__no_data__says_how_to_make_it "$(complains 7 "data make lra/listops" train "$work/wrong.yaml")"
why=""
[ -e "$work/wrong" ] && why="there is $work/wrong"
verdict train__refused__leaves_no_folder "$why"

exit $failed
