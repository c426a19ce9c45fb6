-- Generations and their events. Ids are the 16 bytes of a UUID, times are milliseconds since 1970 UTC.
-- The PostgreSQL schema has the same tables and columns, with uuid, timestamptz and jsonb.

CREATE TABLE generations (
    id                  BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id           TEXT    NOT NULL DEFAULT 'default',
    status              TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')),
    model               TEXT    NOT NULL,
    -- How often a worker began it and was not a worker that handed it back.
    attempt             INTEGER NOT NULL DEFAULT 0,
    -- Grows with every claim and never falls: the number of the only lease that may write.
    fence               INTEGER NOT NULL DEFAULT 0,
    -- Grows with every change of the row.
    version             INTEGER NOT NULL DEFAULT 1,
    -- Not to be claimed before.
    run_at              INTEGER NOT NULL,
    -- Not to be claimed for the first time from then on; NULL once it was claimed.
    start_deadline      INTEGER,
    cancel_requested_at INTEGER,
    created_at          INTEGER NOT NULL,
    started_at          INTEGER,
    finished_at         INTEGER,
    expires_at          INTEGER,
    -- JSON: why it failed; the pictures, where it succeeded.
    problem             TEXT,
    images              TEXT,
    -- JSON: the whole valid request, with its seed, so that a second run draws the same pictures. The largest column
    -- comes last, so that reading the others does not walk over its pages.
    params              TEXT    NOT NULL,
    CHECK ((status = 'failed') = (problem IS NOT NULL)),
    CHECK ((status = 'succeeded') = (images IS NOT NULL)),
    CHECK ((status IN ('queued', 'running')) = (finished_at IS NULL)),
    CHECK ((finished_at IS NULL) = (expires_at IS NULL))
) STRICT;

-- The claim walks the queued in order of their ids and reads nothing but this index; counts and lists use it too.
CREATE INDEX generations_queue ON generations (status, id, run_at, start_deadline);
CREATE INDEX generations_model ON generations (model, id);
CREATE INDEX generations_start ON generations (start_deadline) WHERE status = 'queued';
CREATE INDEX generations_expiry ON generations (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE generation_events (
    generation_id BLOB    NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    -- Counts from 1 without gaps.
    seq           INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    -- JSON.
    data          TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (generation_id, seq)
) STRICT, WITHOUT ROWID;
