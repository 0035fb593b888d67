, points AS MATERIALIZED (
  SELECT method, params, avg(attention_ns) / 1e6 AS ms, 100 * avg(rel_l2_error) AS error, given
  FROM named WHERE NOT lengths AND attention_ns IS NOT NULL AND (rel_l2_error > 0 OR method IN ('vanilla', 'dense'))
  GROUP BY method, params
), judged AS MATERIALIZED (
  SELECT p.*, method NOT IN ('vanilla', 'dense') AND
         NOT EXISTS (SELECT 1 FROM points o WHERE o.method = p.method AND o.ms <= p.ms AND o.error <= p.error AND o.params <> p.params) AS best
  FROM points p
)
SELECT j.method AS series, j.method, ms, iif(j.method IN ('vanilla', 'dense'), NULL, error) AS error, iif(best, error, NULL) AS front,
       iif(best, (SELECT group_concat(key || '=' || value, ' ') FROM (SELECT p.key, p.value FROM json_each(j.given) p JOIN varying v ON v.method = j.method
                  AND v.key = p.key ORDER BY p.key <> 'k', p.key)), NULL) AS setting
FROM judged j
WHERE (SELECT max(c) FROM (SELECT count(*) AS c FROM points GROUP BY method)) > 8
ORDER BY series, best DESC, ms
