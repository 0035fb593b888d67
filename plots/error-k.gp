# How the error of the attention output falls with the number of keys kept.
set xlabel "k, keys kept per query (log scale)"
set ylabel "error against exact attention (log scale)"
set logscale xy
set logscale x 2
set format y "10^{%L}"
set grid
set key outside right top noenhanced
set offsets graph 0.05, graph 0.05, graph 0.05, graph 0.05
plot for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("error")) \
       with linespoints pointtype 7 linewidth 2 linecolor rgb color(m) title m.": relative L2 error", \
     for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("missing")) \
       with linespoints pointtype 6 dashtype 2 linewidth 1.5 linecolor rgb color(m) title m.": softmax mass missed"
