SELECT method AS series,
       CAST(json_extract(params, '$.k') AS REAL) AS k,
       rel_l2_error AS error,
       CASE WHEN mass < 1 THEN 1 - mass END AS missing
FROM results
WHERE experiment = ?1 AND status = 'ok' AND json_extract(params, '$.k') IS NOT NULL AND rel_l2_error IS NOT NULL
ORDER BY method, k;
