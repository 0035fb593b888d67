# How the error of the attention output, and the softmax mass that was missed, fall with the number of keys kept.
eval heading("Error against the number of keys kept")
set xlabel "k, keys kept per query (log scale)"
set ylabel "error against exact attention (log scale)"
set logscale xy
eval marks("y", "1 2 3 5")
set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
plot for [i=1:N] DATA using (of(i, "k")):(column("error")) \
       with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title NAME[i], \
     for [i=1:N] DATA using (of(i, "k")):(column("missing")) \
       with linespoints pointtype SHAPE[i]-1 pointsize 1.2 dashtype 2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     NaN with linespoints pointtype 7 linewidth 2 linecolor rgb "#666666" title "relative L2 error", \
     NaN with linespoints pointtype 6 dashtype 2 linewidth 1.5 linecolor rgb "#666666" title "softmax mass missed"
