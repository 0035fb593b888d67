# Accuracy against attention time: up and left is better. The two exact attentions are the vertical lines.
set title TITLE.": accuracy against attention time" noenhanced
set xlabel "attention time of one pass over the timed inputs, ms (log scale; index building included)"
set ylabel "accuracy, % (bars: 95 % interval)"
set logscale x
set xtics (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
set grid
set key outside right top noenhanced
set autoscale fix
set offsets graph 0.08, graph 0.12, graph 0.06, graph 0.06
stats DATA using (strcol("series") eq "vanilla" ? column("ms") : NaN) nooutput name "V"
stats DATA using (strcol("series") eq "dense" ? column("ms") : NaN) nooutput name "D"
if (V_records > 0) set arrow 1 from V_min, graph 0 to V_min, graph 1 nohead dashtype 2 linecolor rgb color("vanilla")
if (V_records > 0) set label 1 "vanilla" at V_min, graph 0.02 rotate left offset -1.4, 0 textcolor rgb color("vanilla")
if (D_records > 0) set label 2 "dense" at D_min, graph 0.02 rotate left offset -1.4, 0 textcolor rgb color("dense")
if (D_records > 0) set arrow 2 from D_min, graph 0 to D_min, graph 1 nohead dashtype 2 linecolor rgb color("dense")
plot for [m in SERIES] DATA using (strcol("series") eq m ? column("ms") : NaN):(column("accuracy")):(column("accuracy_lo")):(column("accuracy_hi")) \
       with yerrorbars pointtype 7 pointsize 0.9 linewidth 1.5 linecolor rgb color(m) title m, \
     for [m in SERIES] DATA using (strcol("series") eq m ? column("ms") : NaN):(column("accuracy")):(strcol("series") eq strcol("label") ? "" : strcol("label")) \
       with labels noenhanced left offset 0.7, 0.5 font ",10" textcolor rgb color(m) notitle
