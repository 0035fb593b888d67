# Attention latency of a prompt against its length. Marks without a line are published values, of another model and machine: compare ratios.
eval heading("Attention latency against length; marks without a line: published values")
set xlabel "length of a prompt, lines or topics"
set ylabel "attention for one prompt, s (log scale; dashed: of one layer)"
set logscale xy
unset logscale x
eval marks("y", "1 2 5")
plot for [i=1:N] DATA using (of(i, "length")):(column("layer")) \
       with lines dashtype 2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "length")):(column("seconds")) \
       with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "length")):(column("published")) \
       with points pointtype SHAPE[i] pointsize 1.8 linewidth 2 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] NaN with points pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title NAME[i]
