SELECT series, method, k, avg(nullif(rel_l2_error, 0)) AS error, avg(iif(mass < 1, 1 - mass, NULL)) AS missing
FROM named
WHERE NOT lengths AND k > 0 AND rel_l2_error IS NOT NULL
GROUP BY series, method, k
ORDER BY series, k
