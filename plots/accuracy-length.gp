# Accuracy against length: lines or topics of a prompt. Marks without a line are published values.
eval heading("Accuracy against length; marks without a line: published values")
set xlabel "length of a prompt, lines or topics"
set ylabel "accuracy, % (bars: 95 % interval)"
set yrange [(Y_LO < 0 ? -2 : Y_LO):Y_HI]
plot for [i=1:N] DATA using (of(i, "length")):(column("accuracy")):(column("accuracy_lo")):(column("accuracy_hi")) \
       with yerrorbars pointtype -1 linewidth 1 linecolor rgb PALE[i] notitle, \
     for [i=1:N] DATA using (of(i, "length")):(column("accuracy")) \
       with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "length")):(column("published")) \
       with points pointtype SHAPE[i] pointsize 1.8 linewidth 2 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] NaN with points pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title NAME[i]
