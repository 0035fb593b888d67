-- 0007: rows say which split their examples are of, so that settings are chosen on one and confirmed on another; and how many bytes a
-- method reads, a cost without noise.
DROP VIEW results;
DROP VIEW metrics;

-- One row a cell with its metrics as columns, as before but for the bytes.
CREATE VIEW metrics AS
SELECT cell_id,
       max(value) FILTER (WHERE name = 'accuracy')        AS accuracy,
       max(lo)    FILTER (WHERE name = 'accuracy')        AS accuracy_lo,
       max(hi)    FILTER (WHERE name = 'accuracy')        AS accuracy_hi,
       max(value) FILTER (WHERE name = 'attention_ns')    AS attention_ns,
       max(lo)    FILTER (WHERE name = 'attention_ns')    AS attention_ns_lo,
       max(hi)    FILTER (WHERE name = 'attention_ns')    AS attention_ns_hi,
       max(value) FILTER (WHERE name = 'build_ns')        AS build_ns,
       max(lo)    FILTER (WHERE name = 'build_ns')        AS build_ns_lo,
       max(hi)    FILTER (WHERE name = 'build_ns')        AS build_ns_hi,
       max(value) FILTER (WHERE name = 'query_ns')        AS query_ns,
       max(lo)    FILTER (WHERE name = 'query_ns')        AS query_ns_lo,
       max(hi)    FILTER (WHERE name = 'query_ns')        AS query_ns_hi,
       max(value) FILTER (WHERE name = 'model_ns')        AS model_ns,
       max(lo)    FILTER (WHERE name = 'model_ns')        AS model_ns_lo,
       max(hi)    FILTER (WHERE name = 'model_ns')        AS model_ns_hi,
       max(value) FILTER (WHERE name = 'timed_inputs')    AS timed_inputs,
       max(value) FILTER (WHERE name = 'speedup_vanilla') AS speedup_vanilla,
       max(lo)    FILTER (WHERE name = 'speedup_vanilla') AS speedup_vanilla_lo,
       max(hi)    FILTER (WHERE name = 'speedup_vanilla') AS speedup_vanilla_hi,
       max(value) FILTER (WHERE name = 'speedup_dense')   AS speedup_dense,
       max(lo)    FILTER (WHERE name = 'speedup_dense')   AS speedup_dense_lo,
       max(hi)    FILTER (WHERE name = 'speedup_dense')   AS speedup_dense_hi,
       max(value) FILTER (WHERE name = 'l2_error')        AS l2_error,
       max(value) FILTER (WHERE name = 'rel_l2_error')    AS rel_l2_error,
       max(value) FILTER (WHERE name = 'mass')            AS mass,
       max(value) FILTER (WHERE name = 'recall')          AS recall,
       max(value) FILTER (WHERE name = 'pairs')           AS pairs,
       max(value) FILTER (WHERE name = 'peak_bytes')      AS peak_bytes,
       max(value) FILTER (WHERE name = 'length')          AS length,
       max(value) FILTER (WHERE name = 'bytes_touched')   AS bytes_touched
FROM metric GROUP BY cell_id;

-- What everybody reads, as before but for the split and the bytes.
-- retention: against the finished `dense` cell with the same weights, data, examples and threads.
CREATE VIEW results AS
SELECT c.experiment, c.task, c.model, c.method, c.params, c.seed, c.n, c.heads, c.head_dim, c.layers, c.causal, c.threads,
       c.isa, c.examples, c.partial, m.accuracy, m.accuracy_lo, m.accuracy_hi,
       m.accuracy / (SELECT dense.value
                     FROM cell d JOIN metric dense ON dense.cell_id = d.id AND dense.name = 'accuracy'
                     WHERE d.experiment = c.experiment AND d.task = c.task AND d.method = 'dense' AND d.status = 'ok'
                       AND d.model = c.model AND d.seed = c.seed AND d.threads = c.threads AND d.isa = c.isa AND d.examples IS c.examples
                       AND d.data_hash IS c.data_hash AND d.model_hash IS c.model_hash AND dense.value > 0
                     ORDER BY d.id DESC LIMIT 1) AS retention,
       CAST(m.attention_ns AS INTEGER) AS attention_ns, m.attention_ns_lo, m.attention_ns_hi,
       CAST(m.build_ns AS INTEGER) AS build_ns, m.build_ns_lo, m.build_ns_hi,
       CAST(m.query_ns AS INTEGER) AS query_ns, m.query_ns_lo, m.query_ns_hi,
       CAST(m.model_ns AS INTEGER) AS model_ns, m.model_ns_lo, m.model_ns_hi,
       CAST(m.timed_inputs AS INTEGER) AS timed_inputs,
       m.speedup_vanilla, m.speedup_vanilla_lo, m.speedup_vanilla_hi,
       m.speedup_dense, m.speedup_dense_lo, m.speedup_dense_hi,
       m.l2_error, m.rel_l2_error, m.mass, m.recall, CAST(m.pairs AS INTEGER) AS pairs,
       CAST(m.peak_bytes AS INTEGER) AS peak_bytes,
       CASE WHEN c.noise IS NULL OR c.status <> 'ok' THEN c.status ELSE 'invalid-noise' END AS status,
       coalesce(c.noise, c.reason) AS reason, c.label, b.git_commit, b.git_dirty, k.cpu AS machine, b.blas,
       strftime('%Y-%m-%dT%H:%M:%SZ', c.started_utc_ms / 1000, 'unixepoch') AS created_utc,
       c.method_version, c.data_hash, c.model_hash, c.machine_id, k.cores, k.caches, k.memory_bytes, k.os, b.compiler,
       b.variant, c.attempt, c.wall_ms, CAST(m.length AS INTEGER) AS length,
       nullif((SELECT count(*) FROM sample s WHERE s.cell_id = c.id AND s.method = c.method AND s.phase = 'attention'), 0) AS rounds,
       c.id AS cell_id,
       CASE WHEN instr(c.config, '"split":"val"') THEN 'dev' WHEN instr(c.config, '"split":"test"') THEN 'test' END AS split,
       CAST(m.bytes_touched AS INTEGER) AS bytes_touched
FROM cell c
JOIN build b ON b.id = c.build_id
JOIN machine k ON k.id = c.machine_id
LEFT JOIN metrics m ON m.cell_id = c.id;
