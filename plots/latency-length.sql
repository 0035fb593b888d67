-- Seconds of attention for one prompt over its length: of all layers, and of one on average; the published values as rows of their own.
, budgets AS (
  SELECT *, iif(count(*) OVER (PARTITION BY series) > count(*) OVER (PARTITION BY series, setting), series || ' ' || setting, series) AS line
  FROM named WHERE length IS NOT NULL AND attention_ns > 0 AND timed_inputs > 0 AND layers > 0 AND (SELECT count(DISTINCT length) FROM named) > 1
)
SELECT line AS series, method, length, avg(attention_ns / 1e9 / timed_inputs) AS seconds, avg(attention_ns / 1e9 / timed_inputs / layers) AS layer,
       NULL AS published
FROM budgets GROUP BY line, method, length
UNION ALL
SELECT method || ', published', method, length, NULL, NULL, seconds FROM published
WHERE seconds IS NOT NULL AND length IS NOT NULL AND EXISTS (SELECT 1 FROM budgets)
ORDER BY 1, 3
