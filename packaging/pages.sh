#!/bin/sh
# Manual pages and completion of bash from what the program says of itself.
# Usage: pages.sh PROGRAM OUT-DIR VERSION; writes icebench-VERB.1 for each verb, icebench.bash, and icebench.1 last.
set -eu
program=$1 out=$2 version=$3
here=$(dirname "$0")
mkdir -p "$out"
rm -f "$out"/*
# The day of the last commit, so that the same sources make the same pages.
date=$(git -C "$here" log -1 --format=%cs 2>/dev/null || true)
"$program" --help | sed -n '/^verbs:/,/^$/p' | sed -n 's/^  \([a-z]*\) *\(.*\)$/\1 \2/p' >"$out/verbs"
while read -r verb summary; do
  "$program" "$verb" --help >"$out/help"
  awk -v verb="$verb" -v summary="$summary" -v version="$version" -v date="$date" -f "$here/man.awk" "$out/help" >"$out/icebench-$verb.1"
  { echo "verb $verb"; cat "$out/help"; } >>"$out/all"
done <"$out/verbs"
awk -f "$here/completion.awk" "$out/all" >"$out/icebench.bash"
# The page of the program is written by hand but for its verbs.
awk -v verbs="$out/verbs" '
  /^\.\\" VERBS/ {
    while ((getline line < verbs) > 0) {
      verb = line; sub(/ .*/, "", verb); sub(/^[^ ]* /, "", line); gsub(/-/, "\\-", line)
      print ".It Xr icebench-" verb " 1"; print line
    }
    next
  }
  { print }' "$here/../harness/icebench.1" >"$out/icebench.new"
rm "$out/verbs" "$out/help" "$out/all"
mv "$out/icebench.new" "$out/icebench.1"
