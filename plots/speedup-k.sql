SELECT series, method, k,
       avg(speedup_dense) AS dense, avg(speedup_dense_lo) AS dense_lo, avg(speedup_dense_hi) AS dense_hi,
       avg(speedup_vanilla) AS vanilla, avg(speedup_vanilla_lo) AS vanilla_lo, avg(speedup_vanilla_hi) AS vanilla_hi
FROM named
WHERE NOT lengths AND k > 0 AND speedup_dense IS NOT NULL
GROUP BY series, method, k
ORDER BY series, k
