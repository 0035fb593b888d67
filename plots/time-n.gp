# Time of one attention call over the number of tokens. Rings: from there on a method is faster than dense; the number of
# tokens stands below, at a height of its own for each method.
eval heading("Attention time against length; rings: from here on faster than dense")
set xlabel "tokens n, queries and keys (log scale)"
set ylabel "time of one attention call, ms (log scale)"
set logscale xy
eval marks("y", "1")
set xtics ("1k" 1024, "2k" 2048, "4k" 4096, "8k" 8192, "16k" 16384, "32k" 32768, "64k" 65536, "128k" 131072, "256k" 262144)
set yrange [y_at(-0.06 * N):Y_HI]
foot(i) = y_at(-0.06 * i + 0.03)
plot for [i=1:N] DATA using (of(i, "n")):(column("crossing")):(0):(foot(i) - column("crossing")) \
       with vectors nohead dashtype 3 linewidth 1 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "n")):(column("ms")) \
       with lines linewidth 2 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "n")):(column("point")) \
       with points pointtype SHAPE[i] pointsize 1.2 linewidth 1.5 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] DATA using (of(i, "n")):(column("crossing")) \
       with points pointtype 6 pointsize 2.4 linewidth 2 linecolor rgb COLOR[i] notitle, \
     for [i=1:N] NaN with linespoints pointtype SHAPE[i] pointsize 1.2 linewidth 2 linecolor rgb COLOR[i] title NAME[i], \
     for [i=1:N] DATA using (of(i, "n")):(column("crossing") > 0 ? foot(i) : NaN):(strcol("setting")) \
       with labels left offset 0.6, 0 noenhanced font ",10" textcolor rgb COLOR[i] notitle
