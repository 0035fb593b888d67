# man.awk - a manual page from the text of `icebench VERB --help`, so that each fact stands in one place.
# Usage: icebench VERB --help | awk -v verb=VERB -v summary=TEXT -v version=V -v date=D -f man.awk > icebench-VERB.1
# The help is: lines `usage: ...`, paragraphs, indented tables, `examples:` with indented lines, `exit codes: ...`.

function text(s) { gsub(/\\/, "\\e", s); gsub(/-/, "\\-", s); if (s ~ /^[.']/) s = "\\&" s; return s }
function begin(name) { print ".SH " name; section = name }
function literal(on) {
  if (on && !table) print ".PP\n.nf"
  if (!on && table) print ".fi"
  table = on
}

BEGIN {
  printf ".TH ICEBENCH\\-%s 1 \"%s\" \"icebench %s\" \"User Commands\"\n", toupper(verb), date, version
  begin("NAME")
  print "icebench\\-" verb " \\- " text(summary)
}
/^usage: / || (section == "SYNOPSIS" && /^ +(icebench|\[|--|or:)/) {
  if (section != "SYNOPSIS") begin("SYNOPSIS")
  sub(/^usage: /, "")
  sub(/^ +/, "")
  literal(1)
  print text($0)
  next
}
section == "SYNOPSIS" && NF { literal(0); begin("DESCRIPTION") }
/^exit codes: / { literal(0); begin("EXIT STATUS"); sub(/^exit codes: /, "") }
/^examples:$/ { literal(0); begin("EXAMPLES"); next }
!NF { literal(0); if (section != "SYNOPSIS") gap = 1; next }
{
  if (/^ /) literal(1)
  else {
    literal(0)
    if (gap) print ".PP"
  }
  gap = 0
  print text($0)
}
END {
  literal(0)
  begin("SEE ALSO")
  print ".BR icebench (1)"
}
