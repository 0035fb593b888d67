SELECT series, method, avg(attention_ns) / 1e6 AS ms,
       iif(method IN ('vanilla', 'dense'), NULL, avg(nullif(rel_l2_error, 0))) AS error, setting
FROM named
WHERE NOT lengths AND attention_ns IS NOT NULL AND rel_l2_error IS NOT NULL
GROUP BY series, method, setting
ORDER BY series, ms
