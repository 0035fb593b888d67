-- 0004: measurement hygiene. A row measured while the machine was not fit for it keeps its numbers, is not finished, and says so.
ALTER TABLE attempt ADD COLUMN noise TEXT; -- why the times are not to be believed; NULL: nothing against them, or not asked

-- The machine before and after each cell, and hardware counters of a pass; NULL: could not be read.
CREATE VIEW hygiene AS
SELECT c.id AS cell_id, c.experiment, c.task, c.model, c.method, c.params, c.seed, c.noise,
       max(value) FILTER (WHERE name = 'sentinel_before_ns') AS sentinel_before_ns,
       max(value) FILTER (WHERE name = 'sentinel_after_ns')  AS sentinel_after_ns,
       max(value) FILTER (WHERE name = 'load_before')        AS load_before,
       max(value) FILTER (WHERE name = 'load_after')         AS load_after,
       max(value) FILTER (WHERE name = 'mhz_before')         AS mhz_before,
       max(value) FILTER (WHERE name = 'mhz_after')          AS mhz_after,
       max(value) FILTER (WHERE name = 'throttles')          AS throttles,
       max(value) FILTER (WHERE name = 'swapped_pages')      AS swapped_pages,
       max(value) FILTER (WHERE name = 'stolen_ms')          AS stolen_ms,
       max(value) FILTER (WHERE name = 'preemptions')        AS preemptions,
       max(value) FILTER (WHERE name = 'instructions')       AS instructions,
       max(value) FILTER (WHERE name = 'cycles')             AS cycles,
       max(value) FILTER (WHERE name = 'cache_misses')       AS cache_misses,
       max(value) FILTER (WHERE name = 'branch_misses')      AS branch_misses,
       max(value) FILTER (WHERE name = 'twin_instructions')  AS twin_instructions
FROM cell c LEFT JOIN metric m ON m.cell_id = c.id GROUP BY c.id;

-- What everybody reads, as in 0001 but for the status of rows with noise.
DROP VIEW results;
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
       b.variant, c.attempt, c.wall_ms
FROM cell c
JOIN build b ON b.id = c.build_id
JOIN machine k ON k.id = c.machine_id
LEFT JOIN metrics m ON m.cell_id = c.id;
