# completion.awk - the completion of bash, from the help of every verb.
# Input: lines `verb VERB` and below each the text of its --help. Usage: ... | awk -f completion.awk > icebench
$1 == "verb" && NF == 2 { verb = $2; verbs = verbs " " verb; next }
{
  line = $0
  while (match(line, /--[a-z][a-z-]* [a-z0-9-]+(\|[a-z0-9-]+)+/)) { # an option and the words it takes
    words = substr(line, RSTART, RLENGTH)
    line = substr(line, RSTART + RLENGTH)
    option = words
    sub(/ .*/, "", option)
    sub(/^[^ ]* /, "", words)
    gsub(/\|/, " ", words)
    if (!((verb, option) in taken)) takes = takes "    \"" verb " " option "\") COMPREPLY=($(compgen -W \"" words "\" -- \"$word\")); return ;;\n"
    taken[verb, option] = 1
  }
  line = $0
  while (match(line, /(^|[^a-zA-Z0-9-])--[a-z][a-z-]*/)) {
    option = substr(line, RSTART, RLENGTH)
    sub(/^[^-]*/, "", option)
    if (!((verb, option) in seen)) options[verb] = options[verb] " " option
    seen[verb, option] = 1
    line = substr(line, RSTART + RLENGTH)
  }
}
END {
  print "# Completion of icebench for bash: verbs, their options and the words these take, methods, files."
  print "_icebench() {"
  print "  local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} options"
  print "  COMPREPLY=()"
  print "  if [ \"$COMP_CWORD\" -eq 1 ]; then"
  print "    COMPREPLY=($(compgen -W \"" substr(verbs, 2) " help --version\" -- \"$word\"))"
  print "    return"
  print "  fi"
  print "  case $verb in"
  n = split(substr(verbs, 2), list, " ")
  for (i = 1; i <= n; i++) print "    " list[i] ") options=\"" substr(options[list[i]], 2) "\" ;;"
  print "    help) COMPREPLY=($(compgen -W \"" substr(verbs, 2) "\" -- \"$word\")); return ;;"
  print "  esac"
  printf "  case \"$verb ${COMP_WORDS[COMP_CWORD - 1]}\" in\n%s  esac\n", takes
  print "  case $word in"
  print "    -*) COMPREPLY=($(compgen -W \"$options --db --help --no-color -q -v\" -- \"$word\")); return ;;"
  print "  esac"
  print "  case $verb in"
  print "    list) COMPREPLY=($(compgen -W \"methods tasks models configs\" -- \"$word\")) ;;"
  print "    data) [ \"$COMP_CWORD\" -gt 2 ] || COMPREPLY=($(compgen -W \"list make fetch check\" -- \"$word\")) ;;"
  print "    show) COMPREPLY=($(compgen -W \"$(icebench list methods 2>/dev/null | awk '{ print $1 }')\" -- \"$word\")) ;;"
  print "  esac"
  print "}"
  print "complete -o default -F _icebench icebench"
}
