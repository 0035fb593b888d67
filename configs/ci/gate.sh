#!/bin/sh
# gate.sh - is the new binary slower, bigger or less accurate than the base? Both run the same cells on this machine, to and fro
# (base new new base), so that a drift of the machine meets both alike; then `compare` decides.
#
#   configs/ci/gate.sh BASE_ICEBENCH NEW_ICEBENCH [EXPERIMENT.yaml]
#
# Leaves databases and reports in $OUT (default ci-results): compare.md for the pull request, compare.json, junit.xml,
# benchmark-smaller.json and benchmark-bigger.json for github-action-benchmark, gbench.json. Exit code: that of `compare`
# (0 nothing worse, 4 slower or bigger, 5 less accurate, 6 no verdict).
#
# $TURNS: base-new-new-base turns (2). $CALIBRATE: A/A runs of each kind for the noise floor (10; 0 skips). $COMPARE: options of compare.
set -eu
[ $# -ge 2 ] || { sed -n '2,12p' "$0"; exit 2; }
base=$1 new=$2 experiment=${3:-configs/ci/gate.yaml} out=${OUT:-ci-results}
mkdir -p "$out"
rm -f "$out/base.db" "$out/new.db"

measure() { # BINARY DATABASE: a cell that fails is a row, and the comparison's affair
  code=0
  "$1" run "$experiment" --db "$2" --force -q || code=$?
  [ $code -eq 0 ] || [ $code -eq 3 ] || exit $code
}
# The program, not a sanitizer's or debugger's build, has to be calibrated: the new one, whose noise is judged.
[ "${CALIBRATE:-10}" -eq 0 ] || "$new" calibrate "$experiment" --runs "${CALIBRATE:-10}" --db "$out/new.db" -q
turn=0
while [ $turn -lt "${TURNS:-2}" ]; do
  measure "$base" "$out/base.db"
  measure "$new" "$out/new.db"
  measure "$new" "$out/new.db"
  measure "$base" "$out/base.db"
  turn=$((turn + 1))
done
# The new program reads both: it knows every schema the base knows.
exec "$new" compare "$out/base.db" "$out/new.db" --out "$out" ${COMPARE:-}
