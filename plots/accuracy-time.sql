SELECT method AS series,
       attention_ns / 1e6 AS ms,
       100 * accuracy AS accuracy,
       100 * accuracy_lo AS accuracy_lo,
       100 * accuracy_hi AS accuracy_hi,
       CASE WHEN json_extract(params, '$.k') IS NOT NULL THEN 'k=' || json_extract(params, '$.k')
            WHEN json_extract(params, '$.visit') IS NOT NULL THEN 'visit=' || json_extract(params, '$.visit')
            ELSE method END AS label
FROM results
WHERE experiment = ?1 AND status = 'ok' AND attention_ns IS NOT NULL AND accuracy IS NOT NULL
ORDER BY method, attention_ns;
