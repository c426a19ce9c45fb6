-- The queue of many tenants and many workers: leases, fair shares, priorities, crashes, and requests that come twice.

CREATE TABLE tenants (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- The tenant's share of the workers beside others'.
    weight      REAL    NOT NULL DEFAULT 1.0 CHECK (weight > 0),
    -- Virtual finish time of the generation that the tenant has brought last.
    vft         REAL    NOT NULL DEFAULT 0.0,
    -- NULL is no bound.
    max_queued  INTEGER,
    max_running INTEGER,
    created_at  INTEGER NOT NULL
) STRICT;

-- Everybody without a key.
INSERT INTO tenants (id, created_at) VALUES ('default', CAST(unixepoch('subsec') * 1000 AS INTEGER));

CREATE TABLE api_keys (
    -- The public part of the key.
    id         TEXT    NOT NULL PRIMARY KEY,
    sha256     BLOB    NOT NULL CHECK (length(sha256) = 32),
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

-- One row: the virtual time, which is the greatest finish time of those that were claimed.
CREATE TABLE queue_clock (
    v REAL NOT NULL
) STRICT;

INSERT INTO queue_clock (v) VALUES (0.0);

-- They come behind the largest column, so that what looks at many rows reads them from an index.
ALTER TABLE generations ADD COLUMN priority         INTEGER NOT NULL DEFAULT 1;
-- Virtual finish time: the place in the queue among generations of one priority.
ALTER TABLE generations ADD COLUMN vft              REAL    NOT NULL DEFAULT 0.0;
ALTER TABLE generations ADD COLUMN cost             REAL    NOT NULL DEFAULT 0.0;
-- When its priority was raised, or when it was accepted.
ALTER TABLE generations ADD COLUMN aged_at          INTEGER NOT NULL DEFAULT 0;
-- How often a process ended while it ran; from the first time on it runs alone.
ALTER TABLE generations ADD COLUMN crash_count      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE generations ADD COLUMN dead             INTEGER NOT NULL DEFAULT 0;
ALTER TABLE generations ADD COLUMN lease_owner      TEXT;
ALTER TABLE generations ADD COLUMN lease_expires_at INTEGER;
-- SHA-256 of the request as its client has written it; NULL before there were such.
ALTER TABLE generations ADD COLUMN fingerprint      BLOB;

UPDATE generations SET aged_at = created_at;
-- Whoever ran them has ended, since this process has the file.
UPDATE generations SET lease_expires_at = 0 WHERE status = 'running';

DROP INDEX generations_queue;
DROP INDEX generations_start;
-- The claim walks the queued in this order and reads nothing but this index.
CREATE INDEX generations_claim ON generations
    (priority DESC, vft, id, run_at, start_deadline, model, tenant_id, crash_count) WHERE status = 'queued';
CREATE INDEX generations_start ON generations (start_deadline) WHERE status = 'queued';
CREATE INDEX generations_aged ON generations (aged_at) WHERE status = 'queued';
-- The claim sees in it what every tenant and every worker has in hand; those who take back look at all, which are few.
CREATE INDEX generations_running ON generations (tenant_id, lease_owner, crash_count, lease_expires_at)
    WHERE status = 'running';
CREATE INDEX generations_status ON generations (status, id, cost);
CREATE INDEX generations_tenant ON generations (tenant_id, id);
CREATE INDEX generations_tenant_status ON generations (tenant_id, status, id);
CREATE INDEX generations_dead ON generations (id) WHERE dead;

CREATE TABLE idempotency (
    tenant_id     TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    fingerprint   BLOB    NOT NULL,
    generation_id BLOB    NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    expires_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_generation ON idempotency (generation_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE workers (
    id         TEXT    NOT NULL PRIMARY KEY,
    version    TEXT    NOT NULL,
    -- JSON: names.
    models     TEXT    NOT NULL,
    running    INTEGER NOT NULL,
    speed      REAL,
    draining   INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL,
    beaten_at  INTEGER NOT NULL
) STRICT;
