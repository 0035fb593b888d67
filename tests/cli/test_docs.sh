#!/bin/sh
# test_docs.sh - what README, manual page and --help say: commands that a shell takes as they are meant, verbs and files that exist.
. tests/cli/lib.sh

verbs=$("$ICEBENCH_BIN" --help | sed -n '/^verbs/,/^$/p' | awk '/^  / { print $1 }')
packaging/pages.sh "$ICEBENCH_BIN" "$work/man" 1.2.3 || exit 1
[ "$(echo "$verbs" | wc -l)" -ge 10 ] && why="" || why="verbs: $verbs"
for verb in $verbs; do
  "$ICEBENCH_BIN" "$verb" --help | grep "^  icebench $verb" >>"$work/examples" || why="$why no example in $verb --help"
  grep -q "^\.It Xr icebench-$verb 1$" "$work/man/icebench.1" || why="$why the manual page has no $verb"
done
grep -q VERBS "$work/man/icebench.1" && [ "$(grep -c '^\.It Xr' "$work/man/icebench.1")" -eq "$(echo "$verbs" | wc -l)" ] || why="$why verbs of the manual"
verdict help__every_verb__has_an_example_and_a_place_in_the_manual "$why"

# Each page says what --help says, word for word, and groff finds nothing to complain of.
why=""
words() { sed 's/\\e/\\/g; s/\\&//g; s/\\-/-/g' | grep -v '^\.' | tr -s ' \n' '\n\n' | sort; }
for verb in $verbs; do
  "$ICEBENCH_BIN" "$verb" --help | sed 's/^usage: //; s/^exit codes: //; /^examples:$/d' | tr -s ' \n' '\n\n' | grep . | sort >"$work/said"
  sed '/^\.SH NAME/,/^\.SH SYNOPSIS/d' "$work/man/icebench-$verb.1" | words | grep . >"$work/written"
  cmp -s "$work/said" "$work/written" || why="$why $verb: $(diff "$work/said" "$work/written" | head -3)"
  for section in SYNOPSIS DESCRIPTION EXAMPLES; do grep -q "^\.SH $section$" "$work/man/icebench-$verb.1" || why="$why $verb has no $section"; done
  if command -v groff >/dev/null; then
    groff -man -ww -b -z -Tutf8 "$work/man/icebench-$verb.1" 2>"$work/err"
    [ ! -s "$work/err" ] || why="$why $(head -2 "$work/err")"
  fi
done
if command -v groff >/dev/null; then
  groff -mdoc -ww -b -z -Tutf8 "$work/man/icebench.1" 2>"$work/err"
  [ ! -s "$work/err" ] || why="$why $(head -2 "$work/err")"
fi
verdict man__each_verb__says_what_help_says "$why"

# What bash would offer. Words before the cursor are the arguments.
if command -v bash >/dev/null; then
  offers() {
    PATH="$(dirname "$ICEBENCH_BIN"):$PATH" bash -c '. "$1"; shift; COMP_WORDS=(icebench "$@"); COMP_CWORD=$#; _icebench; echo "${COMPREPLY[*]}"' bash "$work/man/icebench.bash" "$@"
  }
  why=""
  [ "$(offers sha)" = shard ] || why="verbs: $(offers sha)"
  [ "$(offers run x.yaml --pre)" = --preset ] || why="$why options: $(offers run x.yaml --pre)"
  case " $(offers merge --) " in *" --keep "*) ;; *) why="$why merge: $(offers merge --)" ;; esac
  case " $(offers merge --) " in *" --preset "*) why="$why an option of another verb" ;; esac
  [ "$(offers report --format j)" = json ] && [ "$(offers merge out.db --keep '')" = "out newest" ] || why="$why words of options: $(offers report --format j), $(offers merge out.db --keep '')"
  [ "$(offers show icef)" = iceformer ] || why="$why methods: $(offers show icef)"
  [ -z "$(offers check conf)" ] || why="$why files are bash's own: $(offers check conf)"
  verdict completion__verbs_options_methods__are_offered "$why"
else
  skipped completion__verbs_options_methods__are_offered "bash is not installed"
fi

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
