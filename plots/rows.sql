-- What every figure selects from: the finished rows of one group (?1..?6), as `named` with `series` and `setting`; and `published`, figures of
-- the task (?7: all of them as JSON, published.h).
-- Rows of fewer examples and of older versions of a method stay out. The budget of a method is k, or else its only parameter
-- that varies; where k stays and only the breadth of the search varies, that. setting tells the budget, series the method and
-- whatever else varies.
WITH finished AS MATERIALIZED (
  SELECT *, iif(json_valid(params), params, '{}') AS given
  FROM results
  WHERE experiment = ?1 AND task = ?2 AND model = ?3 AND threads = CAST(?4 AS INTEGER) AND isa = ?5 AND machine_id = ?6 AND status = 'ok'
), newest AS MATERIALIZED (
  SELECT f.*, json_extract(given, '$.k') AS k
  FROM finished f
  WHERE examples IS (SELECT max(examples) FROM finished)
    AND split IS (SELECT min(split) FROM finished) -- dev where there is one: a sweep is drawn where it was chosen from
    AND method_version = (SELECT method_version FROM finished o WHERE o.method = f.method ORDER BY created_utc DESC, attempt DESC LIMIT 1)
), varying AS MATERIALIZED (
  SELECT method, p.key FROM newest, json_each(given) p GROUP BY method, p.key HAVING count(DISTINCT p.value) > 1
), budget AS MATERIALIZED (
  SELECT n.method,
         CASE WHEN count(DISTINCT v.key) = 1 AND (max(k) IS NULL OR max(v.key) IN ('beam', 'ef', 'nprobe')) THEN max(v.key)
              WHEN max(k) IS NOT NULL THEN 'k' END AS key
  FROM newest n LEFT JOIN varying v ON v.method = n.method GROUP BY n.method
), named AS MATERIALIZED (
  SELECT n.*,
         -- tensors or prompts of several lengths: their charts have n as an axis, and others would mix the lengths
         (task IN ('synth/gauss', 'synth/clustered', 'synth/lowrank') OR length IS NOT NULL) AND (SELECT count(DISTINCT n) FROM newest) > 1 AS lengths,
         n.method || iif(n.label LIKE '%padding computed%', ' padded', '') || coalesce((SELECT group_concat(' ' || p.key || '=' || p.value, '')
                               FROM json_each(given) p JOIN varying v ON v.method = n.method AND v.key = p.key
                               WHERE p.key IS NOT b.key), '') AS series,
         (SELECT p.key || '=' || p.value FROM json_each(given) p WHERE p.key = b.key) AS setting
  FROM newest n JOIN budget b ON b.method = n.method
), published AS MATERIALIZED (
  SELECT json_extract(value, '$.method') AS method, json_extract(value, '$.length') AS length,
         iif(json_extract(value, '$.metric') = 'accuracy', json_extract(value, '$.value'), NULL) AS accuracy,
         iif(json_extract(value, '$.metric') = 'attention_s', json_extract(value, '$.value'), NULL) AS seconds
  FROM json_each(?7) WHERE json_extract(value, '$.task') = ?2
)
