# Speed-up of attention against both baselines; below 1 it is slower.
set title TITLE.": speed-up of attention against both baselines" noenhanced
set xlabel "k, keys kept per query (log scale)"
set ylabel "times faster (log scale; bars: 95 % interval)"
set logscale xy
set logscale x 2
set ytics (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
set grid
set key outside right top noenhanced
set autoscale fix
set yrange [*<0.5:2<*]
set offsets graph 0.05, graph 0.05, graph 0.08, graph 0.08
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linewidth 1.5 linecolor rgb "#555555"
set label 1 "1: as fast as the baseline" at graph 0.01, first 1 offset 0, 0.6 font ",9" textcolor rgb "#555555"
plot for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("speedup_dense")):(column("speedup_dense_lo")):(column("speedup_dense_hi")) \
       with yerrorlines pointtype 7 linewidth 2 linecolor rgb color(m) title m." against dense", \
     for [m in SERIES] DATA using (strcol("series") eq m ? column("k") : NaN):(column("speedup_vanilla")):(column("speedup_vanilla_lo")):(column("speedup_vanilla_hi")) \
       with yerrorlines pointtype 6 dashtype 2 linewidth 1.5 linecolor rgb color(m) title m." against vanilla"
