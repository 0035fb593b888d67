-- 0002: provenance. Which code and which settings a row comes from, and a digest that shows whether it was edited later.

-- Two dirty trees of one commit are two builds. (SQLite cannot widen a UNIQUE in place.)
CREATE TABLE build_0001 AS SELECT * FROM build;
DROP TABLE build;
CREATE TABLE build (
  id         INTEGER PRIMARY KEY,
  version    TEXT NOT NULL,
  git_commit TEXT NOT NULL,
  git_dirty  INTEGER NOT NULL,
  git_diff   TEXT NOT NULL, -- SHA-256 of `git diff HEAD`; '' for a clean tree, and for builds before 0002
  variant    TEXT NOT NULL,
  compiler   TEXT NOT NULL,
  cflags     TEXT NOT NULL,
  blas       TEXT NOT NULL, -- OpenBLAS build and the kernel it chose on the machine
  UNIQUE (version, git_commit, git_dirty, git_diff, variant, compiler, cflags, blas)
) STRICT;
INSERT INTO build SELECT id, version, git_commit, git_dirty, '', variant, compiler, cflags, blas FROM build_0001;
DROP TABLE build_0001;

ALTER TABLE attempt ADD COLUMN kernel TEXT;      -- operating system and its release when the cell ran
ALTER TABLE attempt ADD COLUMN environment TEXT; -- JSON: the variables that may move numbers (harness/machine.c)
ALTER TABLE attempt ADD COLUMN digest TEXT;      -- SHA-256 of all that belongs to the row (harness/store_digest.c); NULL before 0002

-- Where each row that counts comes from.
CREATE VIEW provenance AS
SELECT c.id AS cell_id, c.experiment, c.task, c.model, c.method, c.method_version, c.params, c.seed, c.threads, c.isa, c.config,
       c.data_hash, c.model_hash, c.environment, k.id AS machine_id, k.cpu, k.caches, k.cores, k.memory_bytes,
       coalesce(c.kernel, k.os) AS kernel, b.id AS build_id, b.version, b.git_commit, b.git_dirty, b.git_diff, b.variant, b.compiler,
       b.cflags, b.blas, c.started_utc_ms, c.wall_ms, c.digest
FROM cell c
JOIN build b ON b.id = c.build_id
JOIN machine k ON k.id = c.machine_id;
