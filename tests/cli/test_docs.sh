#!/bin/sh
# test_docs.sh - what README, manual page and --help say: commands that a shell takes as they are meant, verbs and files that exist.
. tests/cli/lib.sh

verbs=$("$ICEBENCH_BIN" --help | sed -n '/^verbs/,/^$/p' | awk '/^  / { print $1 }')
[ "$(echo "$verbs" | wc -l)" -ge 10 ] && why="" || why="verbs: $verbs"
for verb in $verbs; do
  "$ICEBENCH_BIN" "$verb" --help | grep "^  icebench $verb" >>"$work/examples" || why="$why no example in $verb --help"
  grep -q "^\.It Cm $verb\( \|$\)" harness/icebench.1 || why="$why the manual page has no $verb"
done
verdict help__every_verb__has_an_example_and_a_place_in_the_manual "$why"

# A bar inside a word is a pipe unless quoted; `| less` is meant.
sed -n 's/^\.Dl //p' harness/icebench.1 >>"$work/examples"
sed -n '/^```/,/^```/p' README.md | grep '^icebench' >>"$work/examples"
[ "$(wc -l <"$work/examples")" -gt 30 ] && why="" || why="only $(wc -l <"$work/examples") examples were found"
bad=$(sed "s/'[^']*'//g; s/#.*//" "$work/examples" | grep '[^ ]|\||[^ ]')
verdict examples__bars__are_quoted "$why$bad"

why=""
for link in $(grep -o '](\([^)]*\))' README.md DESIGN.md | sed 's/.*](//; s/)$//; s/#.*//' | grep -v '^http'); do
  [ -e "$link" ] || why="$why $link"
done
for folder in $(sed -n '/^## Repository/,$p' README.md | grep -o '`[a-z]*/`' | tr -d '\140'); do
  [ -d "$folder" ] || why="$why $folder"
done
verdict readme__links_and_folders__exist "$why"

exit $failed
