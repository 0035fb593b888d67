#!/bin/sh
# noise.sh - does `compare` keep its promise on this machine? Calibrates, compares one program with itself (every "slower" is a
# false alarm), and slowed by 5 % with itself as it is (every other verdict is a miss). The two sides of a comparison are measured to and
# fro, 20 processes each, as configs/ci/gate.sh does it.
# Usage: ICEBENCH_BIN=build/release/icebench tests/bench/noise.sh calibrate|equal N|slowed N|all [FOLDER, build/noise by default]
set -eu
: "${ICEBENCH_BIN:?}"
what=$1 n=${2:-50} dir=${3:-build/noise}
mkdir -p "$dir"
cat >"$dir/cell.yaml" <<'YAML'
name: noise
task: synth/clustered
shape: {n: 512, d: 32}
threads: 1
methods: [dense]
measure: {rounds: 25, processes: 5, quality: false}
YAML

side() { # FILE [SLOWDOWN]: five processes more
  "$ICEBENCH_BIN" run "$dir/cell.yaml" --db "$1" -q --force ${2:+--set measure.slowdown=$2}
}
# compare_sides SLOWDOWN or "": counts by exit code. The threshold is zero, so that the noise floor alone is the gate.
compare_sides() {
  ok=0 slower=0 unsure=0 i=0
  floor=$("$ICEBENCH_BIN" compare "$dir/calibrated.db#calibrated" "$dir/calibrated.db#calibrated" --format json 2>/dev/null | sed -n 's/.*"noise_floor": \([0-9.e-]*\).*/\1/p' | head -n 1)
  while [ $i -lt "$n" ]; do
    rm -f "$dir/base.db" "$dir/new.db"
    for turn in 1 2; do
      side "$dir/base.db"
      side "$dir/new.db" "$1"
      side "$dir/new.db" "$1"
      side "$dir/base.db"
    done
    code=0
    "$ICEBENCH_BIN" compare "$dir/base.db" "$dir/new.db" --threshold speed=0 --noise-floor "$floor" --detect 1 -q 2>/dev/null || code=$?
    case $code in
    0) ok=$((ok + 1)) ;;
    4) slower=$((slower + 1)) ;;
    6) unsure=$((unsure + 1)) ;;
    *) echo "compare: exit code $code" && exit 1 ;;
    esac
    i=$((i + 1))
  done
}
calibrate() {
  rm -f "$dir/calibrated.db"
  "$ICEBENCH_BIN" calibrate "$dir/cell.yaml" --set measure.processes=20 --runs "${RUNS:-10}" --db "$dir/calibrated.db"
  "$ICEBENCH_BIN" run "$dir/cell.yaml" --set name=calibrated --db "$dir/calibrated.db" -q
}
equal() {
  compare_sides ""
  echo "equal runs: $slower of $n comparisons said slower (stated rate: 5 %), $unsure unsure, $ok fine; noise floor $floor"
}
slowed() {
  compare_sides 0.05
  echo "slowed by 5 %: $slower of $n comparisons said slower, $unsure unsure, $ok missed it; noise floor $floor"
}
case $what in
calibrate) calibrate ;;
equal) equal ;;
slowed) slowed ;;
all)
  calibrate
  n=50 && equal
  n=20 && slowed
  ;;
*) sed -n '2,5p' "$0" && exit 2 ;;
esac
