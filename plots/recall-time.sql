SELECT series, method, avg(attention_ns) / 1e6 AS ms, iif(method IN ('vanilla', 'dense'), NULL, 100 * avg(recall)) AS recall,
       iif(method IN ('vanilla', 'dense'), NULL, 100 * avg(mass)) AS mass, setting
FROM named
WHERE NOT lengths AND attention_ns IS NOT NULL AND (recall IS NOT NULL OR method IN ('vanilla', 'dense'))
GROUP BY series, method, setting
HAVING (SELECT count(recall) FROM named) > 0
ORDER BY series, ms
