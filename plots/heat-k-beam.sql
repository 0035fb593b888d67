, cells AS MATERIALIZED (
  SELECT method, k, json_extract(given, '$.beam') AS beam, avg(retention) AS retention, avg(rel_l2_error) AS error, avg(speedup_dense) AS dense
  FROM named
  WHERE NOT lengths AND k > 0 AND retention IS NOT NULL AND speedup_dense IS NOT NULL AND json_extract(given, '$.beam') IS NOT NULL
  GROUP BY 1, 2, 3
)
SELECT method AS series, method, dense_rank() OVER (ORDER BY k) AS across, dense_rank() OVER (ORDER BY beam) AS up, k, beam,
       100 * retention AS retention, 100 * error AS error, dense
FROM cells
WHERE method = (SELECT method FROM cells GROUP BY method HAVING count(DISTINCT k) > 1 AND count(DISTINCT beam) > 1 ORDER BY count(*) DESC LIMIT 1)
ORDER BY across, up
