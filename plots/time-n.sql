-- Time over length, a line for each method and budget; and, as rows of their own, the lengths from which a method is faster than dense: where the speed-up,
-- measured beside dense, passes 1 on the line between two neighbours (both axes logarithmic).
, budgets AS (
  SELECT *, iif(count(*) OVER (PARTITION BY series) > count(*) OVER (PARTITION BY series, setting), series || ' ' || setting, series) AS line
  FROM named WHERE lengths AND attention_ns > 0
), size AS (
  SELECT line AS series, method, n, avg(attention_ns) AS ns, avg(speedup_dense) AS x FROM budgets GROUP BY line, method, n
), step AS (
  SELECT *, lead(n) OVER w AS n2, lead(ns) OVER w AS ns2, lead(x) OVER w AS x2 FROM size WINDOW w AS (PARTITION BY series ORDER BY n)
), crossing AS (
  SELECT *, ln(1 / x) / ln(x2 / x) AS part FROM step WHERE x < 1 AND x2 >= 1 AND method <> 'dense'
)
SELECT series, method, n, ns / 1e6 AS ms, ns / 1e6 AS point, NULL AS crossing, NULL AS setting FROM size
UNION ALL
SELECT series, method, n * pow(1.0 * n2 / n, part), ns * pow(ns2 / ns, part) / 1e6, NULL, ns * pow(ns2 / ns, part) / 1e6,
       printf('%,d', 100 * CAST(round(n * pow(1.0 * n2 / n, part) / 100) AS INTEGER)) FROM crossing
ORDER BY series, n
