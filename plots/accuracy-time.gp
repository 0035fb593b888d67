# Accuracy against attention time: up and left is better. The two exact attentions are the vertical lines.
set xlabel "attention time of one pass over the timed inputs, ms (log scale; index building included)"
set ylabel "accuracy, % (bars: 95 % interval)"
set logscale x
set xtics add
set grid
set key outside right top noenhanced
set offsets graph 0.06, graph 0.06, graph 0.06, graph 0.06
stats DATA using (strcol("series") eq "vanilla" ? column("ms") : NaN) nooutput name "V"
stats DATA using (strcol("series") eq "dense" ? column("ms") : NaN) nooutput name "D"
if (V_records > 0) set arrow 1 from V_min, graph 0 to V_min, graph 1 nohead dashtype 2 linecolor rgb color("vanilla")
if (D_records > 0) set arrow 2 from D_min, graph 0 to D_min, graph 1 nohead dashtype 2 linecolor rgb color("dense")
plot for [m in SERIES] DATA using (strcol("series") eq m ? column("ms") : NaN):(column("accuracy")):(column("accuracy_lo")):(column("accuracy_hi")) \
       with yerrorbars pointtype 7 pointsize 0.9 linewidth 1.5 linecolor rgb color(m) title m, \
     for [m in SERIES] DATA using (strcol("series") eq m ? column("ms") : NaN):(column("accuracy")):(strcol("series") eq strcol("label") ? "" : strcol("label")) \
       with labels noenhanced offset 0, 1.1 font ",9" textcolor rgb color(m) notitle
