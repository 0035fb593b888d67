#!/bin/sh
# test_fault.sh - what may happen to a database: kills at random moments of run, merge and migration, a full disk, a clock that
# jumps, a file that is locked or may not be written. Nothing that was finished is lost, nothing is there half, and the exit
# code says what was wrong. FAULTS=N kills N times each (`make fault`: 200); SEED=N repeats the moments.
. tests/cli/lib.sh
faults=${FAULTS:-6} seed=${SEED:-$$}
tiny_task "$work/data"
export ICEBENCH_DATA_DIR="$work/data" ICEBENCH_ALLOW_DEBUG=1
tiny_model "$work/m.safetensors" || exit 1

# moments SALT LONGEST: one time for each fault, in seconds
moments() { awk -v seed="$((seed + $1))" -v n="$faults" -v most="$2" 'BEGIN { srand(seed); for (i = 0; i < n; i++) printf "%.4f\n", most * rand() }'; }
# duration COMMAND...: seconds it takes
duration() { s=$(date +%s%N); "$@" >/dev/null 2>&1; awk -v ns=$(($(date +%s%N) - s)) 'BEGIN { printf "%.4f", ns * 1e-9 }'; }
whole() { # FILE: complaints of SQLite
  for pragma in integrity_check foreign_key_check; do
    said=$(sql "$1" "PRAGMA $pragma" 2>&1)
    [ -z "$said" ] || [ "$said" = ok ] || echo "$1: $pragma: $said"
  done
}
killed=0
# kill_at SECONDS COMMAND...: with SIGKILL, unless it is done before
kill_at() { moment=$1; shift; timeout -s KILL "$moment" "$@" >"$work/out" 2>"$work/err"; [ $? -ne 137 ] || killed=$((killed + 1)); }

# --- run: rows only grow, and each is whole

printf 'name: tiny\ntask: lra/listops\nmodel: %s\nthreads: 1\nexamples: 4\nmeasure: {rounds: 1, warmup: 0, inputs: 1}\nseeds: {from: 1, to: 4, step: 1}\nmethods:\n  - dense\n  - topk: {k: {from: 2, to: 5, step: 1}}\n' "$work/m.safetensors" >"$work/x.yaml"
db="$work/run.db" why="" before=0
longest=$(duration "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/first.db" --filter seed=1)
for moment in $(moments 1 "$longest"); do
  kill_at "$moment" "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" -q
  [ -e "$db" ] || continue
  why="$why$(whole "$db")"
  rows=$(sql "$db" "SELECT count(*) FROM cell" 2>/dev/null || echo 0)
  [ "${rows:-0}" -ge "$before" ] || why="$why $before rows became $rows"
  before=${rows:-0}
  if [ "$before" -eq 20 ]; then rm -f "$db" "$db"-*; before=0; fi
done
run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$db" -q
[ "$code" -eq 0 ] && [ "$(sql "$db" "SELECT count(*), count(DISTINCT key), sum(status = 'ok'), sum(digest IS NULL) FROM cell")" = "20|20|20|0" ] || why="$why at the end: $code $(cat "$work/err")"
[ "$killed" -gt 0 ] || why="$why no run was killed"
verdict kill__run_at_random_moments__no_finished_cell_is_lost "$why${why:+ SEED=$seed}"

# --- merge: all of it or nothing, and again it is the same

killed=0 why=""
run "$ICEBENCH_BIN" merge "$work/want.db" "$db"
[ "$code" -eq 0 ] || why="$(cat "$work/err")"
content="SELECT key, status, digest, started_utc_ms FROM cell ORDER BY key"
sql "$work/want.db" "$content" >"$work/want"
longest=$(duration "$ICEBENCH_BIN" merge "$work/timed.db" "$db")
for moment in $(moments 2 "$longest"); do
  [ "$(sql "$work/merged.db" "SELECT count(*) FROM cell" 2>/dev/null)" != 20 ] || rm -f "$work/merged.db" "$work/merged.db"-*
  kill_at "$moment" "$ICEBENCH_BIN" merge "$work/merged.db" "$db"
  [ -e "$work/merged.db" ] || continue
  why="$why$(whole "$work/merged.db")"
  rows=$(sql "$work/merged.db" "SELECT count(*) FROM attempt" 2>/dev/null)
  case ${rows:-0} in 0 | 20) ;; *) why="$why half merged: $rows rows" ;; esac
done
why="$why$(whole "$db")"
run "$ICEBENCH_BIN" merge "$work/merged.db" "$db"
sql "$work/merged.db" "$content" | cmp -s - "$work/want" || why="$why at the end: $code $(cat "$work/err")"
[ "$killed" -gt 0 ] || why="$why no merge was killed"
verdict kill__merge_at_random_moments__all_or_nothing "$why${why:+ SEED=$seed}"

# --- migration: the old schema or the new one, with every row

killed=0 why=""
: >"$work/old.db"
sql "$work/old.db" "$(cat harness/sql/0001_init.sql)"
sql "$work/old.db" "PRAGMA user_version = 1; INSERT INTO machine VALUES ('m', 'cpu', 'none', 1, 1, 'Linux'); INSERT INTO build VALUES (1, '0', 'c', 0, 'release', 'cc', '', 'blas');
  INSERT INTO attempt SELECT value, 'key ' || value, 1, NULL, 'e', 't', 'm', 'dense', '1', '{}', '1', 9, 1, 1, 1, 0, 1, 'avx2', 5, 0, 'ok', NULL, NULL, NULL, 'd', 'h', 'm', 1, value, 5 FROM generate_series(1, 500);" 2>/dev/null ||
  for i in 1 2 3 4 5 6 7 8 9; do sql "$work/old.db" "INSERT INTO attempt VALUES ($i, 'key $i', 1, NULL, 'e', 't', 'm', 'dense', '1', '{}', '1', 9, 1, 1, 1, 0, 1, 'avx2', 5, 0, 'ok', NULL, NULL, NULL, 'd', 'h', 'm', 1, $i, 5)"; done
rows=$(sql "$work/old.db" "SELECT count(*) FROM attempt")
[ "$rows" -ge 9 ] || why="no old database: $rows rows"
newest=$(ls harness/sql/*.sql | wc -l)
cp "$work/old.db" "$work/migrated.db"
longest=$(duration "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/migrated.db" --max-hours 0.000001)
for moment in $(moments 3 "$longest"); do
  [ "$(sql "$work/migrated.db" "PRAGMA user_version")" = 1 ] || { rm -f "$work/migrated.db"-*; cp "$work/old.db" "$work/migrated.db"; }
  kill_at "$moment" "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/migrated.db" --max-hours 0.000001
  why="$why$(whole "$work/migrated.db")"
  case $(sql "$work/migrated.db" "PRAGMA user_version") in 1 | "$newest") ;; *) why="$why schema $(sql "$work/migrated.db" "PRAGMA user_version")" ;; esac
  [ "$(sql "$work/migrated.db" "SELECT count(*) FROM attempt a JOIN build b ON b.id = a.build_id WHERE b.git_commit = 'c'")" = "$rows" ] || why="$why rows are lost"
done
[ "$killed" -gt 0 ] || why="$why no migration was killed"
verdict kill__migration_at_random_moments__old_or_new "$why${why:+ SEED=$seed}"

# --- a full disk

mkdir "$work/small"
if mount -t tmpfs -o size=400k tmpfs "$work/small" 2>/dev/null; then
  trap 'umount "$work/small" 2>/dev/null; rm -rf "$work"' EXIT
  cp "$db" "$work/small/r.db"
  dd if=/dev/zero of="$work/small/ballast" bs=1k 2>/dev/null # to the last byte
  why="$(complains 8 'disk full' run "$work/x.yaml" --db "$work/small/r.db" --force --filter seed=1,method=dense)"
  why="$why$(whole "$work/small/r.db")"
  [ "$(sql "$work/small/r.db" "SELECT count(*) FROM cell")" = 20 ] || why="$why rows: $(sql "$work/small/r.db" "SELECT count(*) FROM cell")"
  why="$why$(complains 8 'disk full' merge "$work/small/new.db" "$db")"
  rm "$work/small/ballast"
  run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/small/r.db" --force --filter seed=1,method=dense
  [ "$code" -eq 0 ] || why="$why with room again: $code $(cat "$work/err")"
  umount "$work/small"
  verdict disk_full__told_and_nothing_lost "$why"
else
  skipped disk_full__told_and_nothing_lost "a small tmpfs cannot be mounted here"
fi

# --- a file that may not be written, a database that is locked

if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
  mkdir "$work/fixed"
  cp "$db" "$work/fixed/r.db"
  chmod 755 "$work" "$work/fixed" && chmod 444 "$work/fixed/r.db"
  run setpriv --reuid=65534 --clear-groups "$ICEBENCH_BIN" merge "$work/fixed/r.db" "$work/first.db"
  [ "$code" -eq 8 ] && grep -q 'readable and writable' "$work/err" && why="" || why="$code $(cat "$work/err")"
  run setpriv --reuid=65534 --clear-groups "$ICEBENCH_BIN" report --db "$work/fixed/r.db"
  [ "$code" -eq 0 ] || why="$why report: $code $(cat "$work/err")"
  verdict read_only__told_and_still_read "$why"
else
  skipped read_only__told_and_still_read "needs root and setpriv, to become somebody else"
fi

# --- a clock that jumps by years, to and fro

cat >"$work/clock.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  static unsigned n = 1;
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  const int rc = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += ((n = n * 1103515245u + 12345u) >> 16 & 1 ? -1 : 1) * 300000000L;
  return rc;
}
C
if ldd "$ICEBENCH_BIN" | grep -q 'lib[at]san'; then
  skipped clock_jumps__rows_and_times_stay_sane "a sanitizer wants to be loaded first"
elif ${CC:-cc} -shared -fPIC -o "$work/clock.so" "$work/clock.c" -ldl 2>/dev/null; then
  LD_PRELOAD="$work/clock.so" run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/clock.db"
  [ "$code" -eq 0 ] && why="" || why="$code $(cat "$work/err")"
  [ "$(sql "$work/clock.db" "SELECT count(*), sum(wall_ms BETWEEN 0 AND 600000), sum(status = 'ok'), max(started_utc_ms) - min(started_utc_ms) > 1e11 FROM cell")" = "20|20|20|1" ] ||
    why="$why $(sql "$work/clock.db" "SELECT status, wall_ms, started_utc_ms, reason FROM cell")"
  run "$ICEBENCH_BIN" run "$work/x.yaml" --db "$work/clock.db"
  grep -q '0 run' "$work/out" || why="$why again: $(cat "$work/out")"
  run "$ICEBENCH_BIN" merge "$work/clock2.db" "$work/clock.db"
  [ "$code" -eq 0 ] || why="$why merge: $(cat "$work/err")"
  verdict clock_jumps__rows_and_times_stay_sane "$why"
else
  skipped clock_jumps__rows_and_times_stay_sane "no shared library could be built"
fi

exit $failed
