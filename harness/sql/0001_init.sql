-- 0001: results. A cell is one combination to be measured; an attempt is one try at it. An attempt enters with its samples,
-- metrics and predictions in one transaction and never leaves: a later try at the same cell only marks it as replaced.
-- Unknown numbers are NULL (or absent from `metric`), never 0.

PRAGMA application_id = 1229145410; -- "ICEB": a database of this program

CREATE TABLE machine (
  id           TEXT PRIMARY KEY, -- hash of the facts below, operating system aside
  cpu          TEXT NOT NULL,
  caches       TEXT NOT NULL,    -- "L1d 32 KiB, L2 1 MiB, L3 32 MiB"
  cores        INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  os           TEXT NOT NULL
) STRICT;

CREATE TABLE build (
  id         INTEGER PRIMARY KEY,
  version    TEXT NOT NULL,
  git_commit TEXT NOT NULL,
  git_dirty  INTEGER NOT NULL,
  variant    TEXT NOT NULL,
  compiler   TEXT NOT NULL,
  cflags     TEXT NOT NULL,
  blas       TEXT NOT NULL, -- OpenBLAS build and the kernel it chose on the machine
  UNIQUE (version, git_commit, git_dirty, variant, compiler, cflags, blas)
) STRICT;

CREATE TABLE attempt (
  id              INTEGER PRIMARY KEY,
  key             TEXT NOT NULL,    -- canonical JSON of everything that identifies the cell
  attempt         INTEGER NOT NULL, -- 1 for the first try at this key
  replaced_utc_ms INTEGER,          -- NULL: the row that counts
  experiment      TEXT NOT NULL,
  task            TEXT NOT NULL,
  model           TEXT NOT NULL,
  method          TEXT NOT NULL,
  method_version  TEXT NOT NULL,
  params          TEXT NOT NULL, -- canonical JSON
  seed            TEXT NOT NULL,    -- 64 bits, unsigned, decimal
  n               INTEGER,          -- mean tokens of a sequence
  heads           INTEGER,
  head_dim        INTEGER,
  layers          INTEGER,
  causal          INTEGER NOT NULL,
  threads         INTEGER NOT NULL,
  isa             TEXT NOT NULL,
  examples        INTEGER,
  partial         INTEGER NOT NULL, -- 1: fewer examples than the experiment asks for
  status          TEXT NOT NULL CHECK (status IN ('ok', 'failed', 'timeout', 'oom', 'unsupported', 'skipped')),
  reason          TEXT,
  label           TEXT,             -- what a reader must know: generated data, no retraining, debug build, ...
  config          TEXT,             -- resolved experiment as JSON
  data_hash       TEXT,
  model_hash      TEXT,
  machine_id      TEXT NOT NULL REFERENCES machine (id),
  build_id        INTEGER NOT NULL REFERENCES build (id),
  started_utc_ms  INTEGER NOT NULL,
  wall_ms         INTEGER NOT NULL,
  UNIQUE (key, attempt)
) STRICT;
CREATE UNIQUE INDEX attempt_that_counts ON attempt (key) WHERE replaced_utc_ms IS NULL;
CREATE INDEX attempt_experiment ON attempt (experiment, task, method);

CREATE TABLE metric (
  cell_id INTEGER NOT NULL REFERENCES attempt (id) ON DELETE CASCADE,
  name    TEXT NOT NULL,
  value   REAL NOT NULL,
  lo      REAL, -- 95 % interval, where there is one
  hi      REAL,
  PRIMARY KEY (cell_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample ( -- every timed round
  cell_id INTEGER NOT NULL REFERENCES attempt (id) ON DELETE CASCADE,
  method  TEXT NOT NULL,
  phase   TEXT NOT NULL,
  round   INTEGER NOT NULL,
  ns      INTEGER NOT NULL,
  PRIMARY KEY (cell_id, method, phase, round)
) STRICT, WITHOUT ROWID;

CREATE TABLE prediction ( -- one row a cell: (item, expected, predicted) as little-endian int32 triples
  cell_id INTEGER PRIMARY KEY REFERENCES attempt (id) ON DELETE CASCADE,
  count   INTEGER NOT NULL,
  data    BLOB NOT NULL,
  CHECK (length(data) = 12 * count)
) STRICT;

CREATE VIEW cell AS SELECT * FROM attempt WHERE replaced_utc_ms IS NULL;
CREATE VIEW history AS SELECT * FROM attempt WHERE replaced_utc_ms IS NOT NULL;

-- One row a cell with its metrics as columns.
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
       max(value) FILTER (WHERE name = 'peak_bytes')      AS peak_bytes
FROM metric GROUP BY cell_id;

-- What everybody reads. retention: against the finished `dense` cell with the same weights, data, examples and threads.
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
       c.status, c.reason, c.label, b.git_commit, b.git_dirty, k.cpu AS machine, b.blas,
       strftime('%Y-%m-%dT%H:%M:%SZ', c.started_utc_ms / 1000, 'unixepoch') AS created_utc,
       c.method_version, c.data_hash, c.model_hash, c.machine_id, k.cores, k.caches, k.memory_bytes, k.os, b.compiler,
       b.variant, c.attempt, c.wall_ms
FROM cell c
JOIN build b ON b.id = c.build_id
JOIN machine k ON k.id = c.machine_id
LEFT JOIN metrics m ON m.cell_id = c.id;
