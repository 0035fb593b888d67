#!/bin/sh
# test_ci.sh - the script that CI runs, on cells so small that nothing is said about time.
. tests/cli/lib.sh

export ICEBENCH_ALLOW_DEBUG=1 CALIBRATE=0 TURNS=1
cat >"$work/cell.yaml" <<'YAML'
name: tiny
task: synth/clustered
shape: {n: 64, d: 16}
threads: 1
methods: [dense, topk: {k: 8}]
measure: {rounds: 6}
YAML
printf '#!/bin/sh\n# a base that was faster: the new one is slowed\ncase $1 in run) exec "%s" "$@" --set measure.slowdown=10 ;; *) exec "%s" "$@" ;; esac\n' "$ICEBENCH_BIN" "$ICEBENCH_BIN" >"$work/slow"
chmod +x "$work/slow"

why=""
run env OUT="$work/ci" COMPARE="--threshold speed=9 --detect 100" configs/ci/gate.sh "$ICEBENCH_BIN" "$ICEBENCH_BIN" "$work/cell.yaml"
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/out" "$work/err")"
[ "$(sql "$work/ci/base.db" "SELECT count(*) FROM attempt")" = 4 ] || why="$why base was not run twice"
for f in compare.md compare.json junit.xml benchmark-smaller.json benchmark-bigger.json gbench.json; do
  [ -s "$work/ci/$f" ] || why="$why no $f"
done
verdict gate__same_binary__0_and_reports_are_there "$why"

run env OUT="$work/ci" configs/ci/gate.sh "$ICEBENCH_BIN" "$work/slow" "$work/cell.yaml"
why=""
[ "$code" -eq 4 ] || why="exit code $code, expected 4: $(cat "$work/out" "$work/err")"
grep -q 'failures="[12]"' "$work/ci/junit.xml" || why="$why junit: $(cat "$work/ci/junit.xml")"
verdict gate__slower_binary__4 "$why"

run configs/ci/gate.sh "$ICEBENCH_BIN"
[ "$code" -eq 2 ] && why="" || why="exit code $code"
run "$ICEBENCH_BIN" check configs/ci/gate.yaml
[ "$code" -eq 0 ] || why="$why $(cat "$work/err")"
run "$ICEBENCH_BIN" check configs/calibrate.yaml
[ "$code" -eq 0 ] || why="$why $(cat "$work/err")"
verdict gate__usage_and_configs__are_in_order "$why"

exit $failed
