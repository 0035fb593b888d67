# How the error of the attention output falls with the number of keys kept.
set title TITLE.": error against the number of keys kept" noenhanced
set xlabel "k, keys kept per query (log scale)"
set ylabel "error against exact attention (log scale)"
set logscale xy
set logscale x 2
set ytics (1e-6, 1e-5, 1e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
set grid
set key outside right top noenhanced
set autoscale fix
set offsets graph 0.05, graph 0.05, graph 0.08, graph 0.08
plot for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("error")) \
       with linespoints pointtype 7 linewidth 2 linecolor rgb color(m) title m.": relative L2 error", \
     for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("missing")) \
       with linespoints pointtype 6 dashtype 2 linewidth 1.5 linecolor rgb color(m) title m.": softmax mass missed"
