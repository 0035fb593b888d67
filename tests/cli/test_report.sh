#!/bin/sh
# Verbs report and plot from the command line: formats, files, exit codes, one line for each fault.
. tests/cli/lib.sh

db=$work/r.db
export ICEBENCH_ALLOW_DEBUG=1
ICEBENCH_DB=$db
export ICEBENCH_DB
"$ICEBENCH_BIN" attn --synth clustered:h=1,n=256,d=16,seed=1 --methods vanilla,dense,topk,iceformer --set 'topk.k=4|16' --rounds 2 --save -q >"$work/out" 2>"$work/err" ||
  { broken setup "$(cat "$work/err")"; exit 1; }

why=""
run "$ICEBENCH_BIN" report
[ "$code" -eq 0 ] || why="exit code $code"
for text in '## attn: ' '| vanilla ' '| topk ' '| k=16 ' '**x dense**: ' '**measured on**: '; do
  grep -qF -- "$text" "$work/out" || why="$why; '$text' is missing"
done
verdict report__markdown__rows_and_legend "$why"

cp "$db" "$work/mixed.db"
sql "$work/mixed.db" "UPDATE attempt SET partial = 1, examples = id, digest = NULL" >/dev/null
verdict report__mixed_rows__refused "$(complains 2 '--allow-mixed' report --db "$work/mixed.db")"
run "$ICEBENCH_BIN" report --db "$work/mixed.db" --allow-mixed
[ "$code" -eq 0 ] && why="" || why="$code $(cat "$work/err")"
verdict report__allow_mixed__reports_them "$why"

# A number changed by hand is shown by no verb; a row that was replaced since concerns the history only.
cp "$db" "$work/edited.db"
sql "$work/edited.db" "UPDATE metric SET value = value / 2 WHERE name = 'attention_ns' AND cell_id = 2" >/dev/null
why=""
for verb in report 'report --format html' 'report --iso-accuracy 0.9' history plot 'explain attn'; do
  why="$why$(complains 8 'row 2 (dense on synth/clustered) was edited or is damaged' $verb --db "$work/edited.db")"
done
sql "$work/edited.db" "UPDATE attempt SET replaced_utc_ms = 1 WHERE id = 2" >/dev/null
run "$ICEBENCH_BIN" report --db "$work/edited.db"
[ "$code" -eq 0 ] || why="$why; replaced: $code $(cat "$work/err")"
why="$why$(complains 8 'row 2' history --db "$work/edited.db")"
verdict report__edited_row__8 "$why"

why=""
"$ICEBENCH_BIN" report --format csv >"$work/csv"
[ "$(wc -l <"$work/csv")" -eq 6 ] || why="$(wc -l <"$work/csv") lines of csv"
head -n 1 "$work/csv" | grep -q '^experiment,task,model,method,params,seed,n,heads,head_dim,layers,causal,threads,isa,examples,partial,accuracy,' || why="$why; csv head: $(head -n 1 "$work/csv")"
"$ICEBENCH_BIN" report --format json | grep -c '"method": ' | grep -qx 5 || why="$why; json"
"$ICEBENCH_BIN" report --format html | grep -q '</html>' || why="$why; html"
"$ICEBENCH_BIN" report --format latex --experiment attn | grep -q bottomrule || why="$why; latex"
"$ICEBENCH_BIN" report --against paper | grep -q 'lra/listops against published values' || why="$why; against"
verdict report__every_format__is_written "$why"

# LaTeX takes it, whatever the names are and however wide and long the table is.
why=""
if command -v pdflatex >/dev/null && kpsewhich booktabs.sty >/dev/null; then
  cp "$db" "$work/hostile.db"
  sql "$work/hostile.db" "UPDATE attempt SET digest = NULL, experiment = '% _ & # ~ ^ \\ { } \$ \\end{table} -- [x] \"q\" ''a'' '
    || (WITH RECURSIVE c(n) AS (SELECT 161 UNION ALL SELECT n + 1 FROM c WHERE n < 255) SELECT group_concat(char(n), '') FROM c) || ' ' || char(945, 26085, 128512, 10, 7),
    label = '[optional] \\input{none}, *star', reason = 'a long reason with \\undefined in it, for a list below the table: ^_%' WHERE id <= 3" >/dev/null
  for i in 1 2 3 4 5 6; do # 320 rows
    sql "$work/hostile.db" "INSERT INTO attempt SELECT id + (SELECT max(id) FROM attempt), key || $i, attempt, replaced_utc_ms, 'long', task, model, method, method_version, '{\"k\":' || (id + (SELECT max(id) FROM attempt)) || ',\"levels\":3}', seed, n,
      heads, head_dim, layers, causal, threads, isa, examples, partial, status, reason, label, config, data_hash, model_hash, machine_id, build_id, started_utc_ms, wall_ms, kernel,
      environment, NULL, noise FROM attempt" >/dev/null || why="$why; rows"
  done
  "$ICEBENCH_BIN" report --db "$work/hostile.db" --format latex --allow-mixed >"$work/hostile.tex" || why="$why; no report"
  printf '%s\n' '\documentclass{article}' '\usepackage[T1]{fontenc}' '\usepackage{booktabs}' '\begin{document}' '\input{hostile.tex}' '\end{document}' >"$work/doc.tex"
  (cd "$work" && pdflatex -draftmode -halt-on-error -interaction=nonstopmode doc.tex >tex.out 2>&1) || why="$why; $(grep -A3 '^!' "$work/tex.out" | tr '\n' ' ' | head -c 400)"
  grep -q 'Float too large' "$work/tex.out" && why="$why; a table is longer than a page"
  verdict report__latex__compiles "$why"
else
  skipped report__latex__compiles "pdflatex with booktabs is not installed (Debian: texlive-latex-base texlive-latex-recommended)"
fi

why=""
if command -v gnuplot >/dev/null; then
  run "$ICEBENCH_BIN" plot --out "$work/charts"
  [ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
  for file in attn-error-k attn-error-time attn-speedup-k; do
    [ -s "$work/charts/$file.svg" ] && [ -s "$work/charts/$file.gp" ] && [ -s "$work/charts/$file.dat" ] || why="$why; no $file"
    grep -qF "$work/charts/$file.svg" "$work/out" || why="$why; $file is not named"
  done
  [ ! -e "$work/charts/attn-accuracy-time.svg" ] || why="$why; a chart of accuracy without accuracies"
  verdict plot__all_figures__named_and_kept "$why"
else
  skipped plot__all_figures__named_and_kept "gnuplot is not installed"
fi

verdict report__unknown_format__refused "$(complains 2 'allowed md, csv, json, latex, html' report --format xml)"
verdict report__unknown_rival__refused "$(complains 2 'allowed paper' report --against rumour)"
verdict report__unknown_experiment__no_verdict "$(complains 6 "no results of experiment 'none'" report --experiment none)"
verdict report__absent_database__says_how_to_make_one "$(complains 8 'icebench run makes' report --db "$work/none.db")"
verdict plot__unknown_figure__refused "$(complains 2 'allowed accuracy-length, accuracy-time' plot --figure pie --out "$work/charts")"
verdict plot__unknown_terminal__refused "$(complains 2 'allowed svg, png, pdf' plot --terminal gif --out "$work/charts")"
verdict plot__unknown_experiment__no_verdict "$(complains 6 'no rows for a chart' plot --experiment none --out "$work/charts")"
echo text >"$work/file"
verdict plot__folder_is_a_file__refused "$(complains 1 "$work/file" plot --out "$work/file/charts")"
verdict report__no_database__refused "$(complains 8 'no SQLite database' report --db "$work/file")"

run sh -c "\"$ICEBENCH_BIN\" report --format csv >/dev/full"
[ "$code" -eq 1 ] && why="" || why="exit code $code: $(cat "$work/err")"
verdict report__full_disk__exit_code_1 "$why"

exit $failed
