# translit.awk - writes datasets/translit.def from the Unicode Character Database:
#   awk -f datasets/translit.awk /usr/share/unicode/UnicodeData.txt >datasets/translit.def     (Debian: unicode-data)
# A row for every character that has a decomposition and no lower case: its full decomposition without marks. Only those whose parts are
# ASCII, Latin, Greek, Cyrillic, punctuation, signs of arithmetic; a spacing mark, which would leave a space behind, is none of them.
# A fraction gets a space in front: 2 1/2, not 21/2.
function number(hex,    i, v) {
  for (i = 1; i <= length(hex); i++) v = 16 * v + index("0123456789ABCDEF", substr(hex, i, 1)) - 1
  return v
}
function utf8(c) {
  if (c < 128) return (c == 34 || c == 92 ? "\\" : "") sprintf("%c", c)
  if (c < 2048) return sprintf("\\%o\\%o", 192 + int(c / 64), 128 + c % 64)
  return sprintf("\\%o\\%o\\%o", 224 + int(c / 4096), 128 + int(c / 64) % 64, 128 + c % 64)
}
function is_mark(c) { return c >= 768 && c < 880 } # U+0300 .. U+036F
function is_kept(c) { return (c > 32 && c < 1328) || (c >= 8192 && c < 8304) || (c >= 8704 && c < 8736) } # U+0021 .. U+052F, U+2000 .. U+206F, U+2200 .. U+221F
function spelled(hex,    part, n, i, c, s) { # "-": a part is none of ours
  if (!(hex in parts)) return is_mark(c = number(hex)) ? "" : is_kept(c) ? utf8(c) : "-"
  n = split(parts[hex], part, " ")
  for (i = 1; i <= n; i++) {
    if ((c = spelled(part[i])) == "-") return "-"
    s = s c
  }
  return s
}
BEGIN {
  FS = ";"
  print "/* translit.def - written by translit.awk from the Unicode Character Database, changed as told there. Its notice: translit.license */"
}
$6 != "" {
  parts[$1] = $6
  if (sub(/^<fraction> /, "", parts[$1])) apart[$1] = 1
  sub(/^<[a-zA-Z]*> /, "", parts[$1])
  if ($14 == "") order[++rows] = $1
}
END {
  for (i = 1; i <= rows; i++) {
    s = spelled(order[i])
    if (s != "-" && s != "") printf "X(0x%s, \"%s%s\")%s", tolower(order[i]), (order[i] in apart) ? " " : "", s, ++n % 10 ? " " : "\n"
  }
  if (n % 10) print ""
}
