-- Accuracy over length, a line for each method and budget, and the published values as rows of their own. Only where there are several lengths.
, budgets AS (
  SELECT *, iif(count(*) OVER (PARTITION BY series) > count(*) OVER (PARTITION BY series, setting), series || ' ' || setting, series) AS line
  FROM named WHERE length IS NOT NULL AND accuracy IS NOT NULL AND (SELECT count(DISTINCT length) FROM named) > 1
)
SELECT line AS series, method, length, 100 * avg(accuracy) AS accuracy, 100 * avg(accuracy_lo) AS accuracy_lo, 100 * avg(accuracy_hi) AS accuracy_hi,
       NULL AS published
FROM budgets GROUP BY line, method, length
UNION ALL
SELECT method || ', published', method, length, NULL, NULL, NULL, 100 * accuracy FROM published
WHERE accuracy IS NOT NULL AND length IS NOT NULL AND EXISTS (SELECT 1 FROM budgets)
ORDER BY 1, 3
