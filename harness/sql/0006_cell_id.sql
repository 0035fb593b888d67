-- 0006: rows of `results` can be followed to what belongs to them: their cell (views provenance and hygiene, tables sample, prediction,
-- answer, metric), and how many rounds were timed.
DROP VIEW results;

-- What everybody reads, as before but for the rounds and the cell.
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
       c.id AS cell_id
FROM cell c
JOIN build b ON b.id = c.build_id
JOIN machine k ON k.id = c.machine_id
LEFT JOIN metrics m ON m.cell_id = c.id;
