# lib.sh - what the command-line tests share. They speak cmocka's language, see tests/run.sh.
: "${ICEBENCH_BIN:?is set by tests/run.sh}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

passed() { echo "[       OK ] $1"; }
broken() { # name, why...
  echo "[  FAILED  ] $1"
  shift
  printf '%s\n' "$@"
  failed=1
}
skipped() { # name, why
  echo "[  SKIPPED ] $1"
  echo "SKIP $2"
}
# verdict NAME WHY: passed when WHY is empty
verdict() { if [ -z "$2" ]; then passed "$1"; else broken "$1" "$2"; fi; }

# run COMMAND...: output in $work/out and $work/err, exit code in $code
run() {
  "$@" >"$work/out" 2>"$work/err" </dev/null
  code=$?
}
# complains CODE TEXT OPTIONS...: icebench with these options leaves with CODE and one line on stderr that holds TEXT;
# says what was wrong otherwise
complains() {
  want=$1 text=$2
  shift 2
  run "$ICEBENCH_BIN" "$@"
  if [ "$code" -ne "$want" ]; then
    echo "icebench $*: exit code $code, expected $want: $(head -c 300 "$work/err")"
  elif ! grep -qF -- "$text" "$work/err"; then
    echo "icebench $*: expected '$text', got: $(head -c 300 "$work/err")"
  elif [ "$(grep -c '^icebench: ' "$work/err")" -ne 1 ]; then
    echo "icebench $*: expected one line, got: $(head -c 300 "$work/err")"
  fi
}
# field FILE N NAME: value of NAME in the N-th method of the JSON that attn prints
field() { awk -v n="$2" -v name="\"$3\":" '$1 == "\"method\":" { seen++ } seen == n && $1 == name { sub(/,$/, "", $2); print $2; exit }' "$1"; }
# is EXPRESSION: a comparison of numbers, by awk
is() { awk "BEGIN { exit !($1) }"; }

# tiny_task DIR: a ListOps data root with 12 short examples per split, marked as generated.
tiny_task() {
  mkdir -p "$1/lra/listops-1000"
  echo '{"complete": true}' >"$1/lra/listops-1000/generated.json"
  for split in train val test; do
    awk -v seed=$((${#split} * 7)) 'BEGIN {
      srand(seed); print "Source\tTarget"
      for (e = 0; e < 12; e++) {
        n = 20 + 10 * e; sum = 0; open = ""; body = ""
        for (i = 0; i < n; i++) { d = int(10 * rand()); sum += d; open = open "( "; body = body " " d " )" }
        print open "( [SM" body " ] )\t" sum % 10
      }
    }' >"$1/lra/listops-1000/basic_$split.tsv"
  done
}
# tiny_model FILE: a checkpoint of two training steps on $ICEBENCH_DATA_DIR.
tiny_model() {
  printf 'name: tiny\ntask: lra/listops\nout: %s\nbatch: 2\nsteps: 2\nwarmup: 1\nthreads: 1\n' "$1" >"$work/tiny.yaml"
  "$ICEBENCH_BIN" train "$work/tiny.yaml" -q
}
# children PID: the first child of a process, if it has one
children() { cut -d ' ' -f 1 "/proc/$1/task/$1/children" 2>/dev/null; }
# sql FILE STATEMENT: rows of a query
sql() {
  [ -x "$work/sql" ] || ${CC:-cc} -o "$work/sql" tests/cli/sql.c -lsqlite3 || exit 1
  "$work/sql" "$@"
}
