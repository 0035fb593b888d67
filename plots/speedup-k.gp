# Speed-up of attention against both baselines; below 1 it is slower.
eval heading("Speed-up against both baselines")
set xlabel "k, keys kept per query (log scale)"
set ylabel "times faster (log scale; bars: 95 % interval)"
set logscale xy
eval marks("y", "1 2 3 5")
set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
set yrange [(Y_LO < 0.8 ? Y_LO : 0.8):(Y_HI > 1.25 ? Y_HI : 1.25)]
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linewidth 1.5 linecolor rgb "#555555"
set label 1 "1: as fast as the baseline" at graph 0.99, first 1 right offset 0, 0.5 font ",10" textcolor rgb "#555555"
plot for [i=1:N] DATA using (of(i, "k")):(column("dense")):(column("dense_lo")):(column("dense_hi")) \
       with yerrorlines pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title NAME[i], \
     for [i=1:N] DATA using (of(i, "k")):(column("vanilla")):(column("vanilla_lo")):(column("vanilla_hi")) \
       with yerrorlines pointtype SHAPE[i]-1 pointsize 1.2 dashtype 2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     NaN with linespoints pointtype 7 linewidth 2 linecolor rgb "#666666" title "against dense", \
     NaN with linespoints pointtype 6 dashtype 2 linewidth 1.5 linecolor rgb "#666666" title "against vanilla"
