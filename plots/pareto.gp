# Every setting of a sweep; those that no other beats in both time and error are joined. Down and left is better.
eval heading("Error against attention time: the settings that no other beats")
set xlabel "attention time of one pass over the timed inputs, ms (log scale)"
set ylabel "relative L2 error, % (log scale)"
set logscale xy
eval marks("x", "1 2 3 5")
eval marks("y", "1 2 3 5")
plot for [i=1:N] DATA using (exact_at(i, "ms")):(Y_LO):(0):(y_at(0.92) - Y_LO) \
       with vectors nohead dashtype 2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (exact_at(i, "ms")):(y_at(name_height(i))):(strcol("method")) \
       with labels center noenhanced font ",11" textcolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "ms")):(column("error")) \
       with points pointtype SHAPE[i]-1 pointsize 0.8 linewidth 1 linecolor rgb PALE[i] notitle, \
     for [i=1:N] DATA using (of(i, "ms")):(column("front")) \
       with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 1.5 linecolor rgb COLOR[i] title NAME[i], \
     for [i=1:N] DATA using (of(i, "label_x")):(column("label_y")):(strcol("setting")) \
       with labels center noenhanced font ",10" textcolor rgb COLOR[i] notitle
