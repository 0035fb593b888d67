SELECT series, method, avg(attention_ns) / 1e6 AS ms,
       100 * avg(accuracy) AS accuracy, 100 * avg(accuracy_lo) AS accuracy_lo, 100 * avg(accuracy_hi) AS accuracy_hi, setting
FROM named
WHERE NOT lengths AND attention_ns IS NOT NULL AND accuracy IS NOT NULL
GROUP BY series, method, setting
ORDER BY series, ms
