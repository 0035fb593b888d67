SELECT method AS series,
       CAST(json_extract(params, '$.k') AS REAL) AS k,
       speedup_dense, speedup_dense_lo, speedup_dense_hi,
       speedup_vanilla, speedup_vanilla_lo, speedup_vanilla_hi
FROM results
WHERE experiment = ?1 AND status = 'ok' AND json_extract(params, '$.k') IS NOT NULL AND speedup_dense IS NOT NULL
ORDER BY method, k;
