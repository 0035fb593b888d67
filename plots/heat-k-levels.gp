# Two maps side by side over k and levels: what is kept, and what is gained. Means over all other parameters that vary.
eval heading(METHOD[1].": k and levels (means over what else varies)")
set label 1 "kept: relative L2 error, % (in brackets: accuracy / accuracy of dense, %)" at screen 0.07, screen 0.845 font ",11"
set label 2 "gained: times faster than dense" at screen 0.57, screen 0.845 font ",11"
stats DATA using (column("across")) name "A" nooutput
stats DATA using (column("up")) name "U" nooutput
set xrange [0.5:A_max+0.5]
set yrange [0.5:U_max+0.5]
set border 0
unset key
unset grid
set tics scale 0
set xlabel "k, keys kept per query"
set ylabel "levels"
set bmargin at screen 0.2
set tmargin at screen 0.81
set multiplot
set lmargin at screen 0.07
set rmargin at screen 0.46
# light is good in both maps: little error, much speed
set palette defined (0 "#fff7e0", 1 "#E69F00", 2 "#c8650a")
set colorbox user origin screen 0.468, screen 0.2 size screen 0.012, screen 0.61
set cblabel ""
plot DATA using (column("across")):(column("up")):(column("across")-0.49):(column("across")+0.49):(column("up")-0.49):(column("up")+0.49):(column("error")) \
       with boxxyerror fillstyle solid noborder linecolor palette, \
     DATA using (column("across")):(column("up")):(sprintf("%.1f\n{/*0.8 (%.1f)}", column("error"), column("retention"))):xtic(strcol("k")):ytic(strcol("levels")) \
       with labels font ",11" textcolor rgb "#000000"
unset label
set lmargin at screen 0.57
set rmargin at screen 0.93
set palette defined (-1 "#c8650a", -0.4 "#E69F00", 0 "#ffffff", 0.4 "#56B4E9", 1 "#0072B2")
set colorbox user origin screen 0.938, screen 0.2 size screen 0.012, screen 0.61
# colours by the logarithm, white where it is as fast as dense
set cbrange [-1:1]
set cbtics ("1/2" -1, "1" 0, "2" 1)
plot DATA using (column("across")):(column("up")):(column("across")-0.49):(column("across")+0.49):(column("up")-0.49):(column("up")+0.49):(log(column("dense"))/log(2)) \
       with boxxyerror fillstyle solid noborder linecolor palette, \
     DATA using (column("across")):(column("up")):(sprintf("%.2f", column("dense"))):xtic(strcol("k")):ytic(strcol("levels")) \
       with labels font ",11" textcolor rgb "#000000"
unset multiplot
