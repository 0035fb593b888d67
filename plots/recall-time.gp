# Share of the best keys that were found against attention time: up and left is better. Exact attentions are vertical lines.
eval heading("Keys found against attention time")
set xlabel "attention time of one pass over the timed inputs, ms (log scale)"
set ylabel "% of the best k keys found (dashed: % of the softmax mass)"
set logscale x
eval marks("x", "1 2 3 5")
set yrange [(Y_LO < 0 ? 0 : Y_LO):Y_HI]
plot for [i=1:N] DATA using (exact_at(i, "ms")):(Y_LO):(0):(y_at(0.92) - Y_LO) \
       with vectors nohead dashtype 2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (exact_at(i, "ms")):(y_at(name_height(i))):(strcol("method")) \
       with labels center noenhanced font ",11" textcolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "ms")):(column("mass")) \
       with linespoints pointtype SHAPE[i]-1 pointsize 0.9 dashtype 2 linewidth 1 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "ms")):(column("recall")) \
       with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title (exact(i) ? "" : NAME[i]), \
     for [i=1:N] DATA using (of(i, "label_x")):(column("label_y")):(strcol("setting")) \
       with labels center noenhanced font ",10" textcolor rgb COLOR[i] notitle
