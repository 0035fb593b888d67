-- 0003: noise. What A/A runs on a machine show where nothing changed (icebench calibrate), newest row first to be believed.
CREATE TABLE noise_floor (
  id             INTEGER PRIMARY KEY,
  machine_id     TEXT NOT NULL REFERENCES machine (id),
  build_id       INTEGER NOT NULL REFERENCES build (id),
  created_utc_ms INTEGER NOT NULL,
  task           TEXT NOT NULL, -- the cell that was run again and again
  model          TEXT NOT NULL,
  method         TEXT NOT NULL,
  params         TEXT NOT NULL,
  threads        INTEGER NOT NULL,
  isa            TEXT NOT NULL,
  rounds         INTEGER NOT NULL, -- of a run
  runs           INTEGER NOT NULL, -- A/A runs
  rate           REAL NOT NULL,    -- share of A/A comparisons that go beyond the floor, at most
  floor          REAL NOT NULL,    -- relative: 0.02 = 2 %
  power          TEXT NOT NULL     -- JSON: injected slowdown -> share of comparisons that caught it
) STRICT;
