#!/bin/sh
# Runs every test program, the fuzz corpus replay and the command-line tests; closes with "N passed, N failed, N skipped".
# Usage: B=build/release tests/run.sh [name filter]
set -u
: "${B:=build/release}"
filter=${1:-}
passed=0 failed=0 skipped=0
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
export ICEBENCH_BIN="$PWD/$B/icebench"
export OMP_WAIT_POLICY=passive # many short parallel loops: waiting threads leave the CPU to others

# A program speaks cmocka's language: lines "[       OK ] name", "[  FAILED  ] name", "[  SKIPPED ] name".
count() { # name, output file, exit code
  p=$(grep -c '^\[       OK \]' "$2")
  s=$(grep '^\[  SKIPPED \] [a-z_A-Z0-9]*$' "$2" | sort -u | wc -l)
  f=$(grep '^\[  FAILED  \] [a-z_A-Z0-9]*$' "$2" | sort -u | wc -l) # cmocka names a failure twice
  if [ "$3" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  if [ "$3" -eq 0 ]; then f=0; fi
  if [ "$p$s$f" = 000 ]; then echo "$1: no test was run"; f=1; fi
  passed=$((passed + p)) skipped=$((skipped + s)) failed=$((failed + f))
  if [ "$f" -ne 0 ]; then echo "FAIL $1 (exit $3)"; cat "$2"; else echo "ok   $1 ($p passed, $s skipped)"; fi
  if [ "$s" -ne 0 ]; then grep -h '^SKIP' "$2" | sort -u | sed 's/^/     /'; fi
}

for source in tests/unit/test_*.c tests/property/test_*.c tests/regression/test_*.c; do
  [ -e "$source" ] || continue
  case $source in *"$filter"*) ;; *) continue ;; esac
  "$B/${source%.c}" >"$log/out" 2>&1
  count "$source" "$log/out" $?
done
for source in tests/fuzz/fuzz_*.c; do
  [ -e "$source" ] || continue
  case $source in *"$filter"*) ;; *) continue ;; esac
  name=$(basename "$source" .c)
  "$B/${source%.c}.replay" tests/fuzz/corpus/"$name"/* >"$log/out" 2>&1
  count "$source (corpus)" "$log/out" $?
done
for script in tests/cli/test_*.sh; do
  [ -e "$script" ] || continue
  case $script in *"$filter"*) ;; *) continue ;; esac
  sh "$script" >"$log/out" 2>&1
  count "$script" "$log/out" $?
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
