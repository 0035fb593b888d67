# The paper's latency figure: groups of bars by task, in its order, relative to vanilla.
eval heading("Attention time relative to the Transformer: ours and published")
set ylabel "time / time of vanilla (log scale)"
set logscale y
eval marks("y", "1 2 3 5")
set yrange [Y_LO:(Y_HI > 1.3 ? Y_HI : 1.3)]
set xtics scale 0 ("ListOps" 3.5, "Text, 1K" 13.5, "Retrieval" 23.5, "Image" 33.5, "Pathfinder" 43.5)
set grid noxtics
set boxwidth 0.85
set style fill solid 0.85 noborder
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linewidth 1.5 linecolor rgb "#555555"
plot for [i=1:N] DATA using (of(i, "x")):(column("ours")) with boxes linecolor rgb COLOR[i] title NAME[i], \
     for [i=1:N] DATA using (of(i, "x")):(column("ours")):(column("ours_lo")):(column("ours_hi")) \
       with yerrorbars pointtype -1 linewidth 1 linecolor rgb "#333333" notitle, \
     DATA using (column("x")):(column("published")) with points pointtype 2 pointsize 0.9 linewidth 2 linecolor rgb "#d00000" title "published"
