-- Generations, their events, and the queue that many processes share. The SQLite schema has the same tables and columns, with
-- milliseconds since 1970 for timestamptz, BLOB for uuid and TEXT for jsonb; what only many processes need is at the end.

CREATE TABLE tenants (
    id          text             COLLATE "C" NOT NULL PRIMARY KEY,
    -- The tenant's share of the workers beside others'.
    weight      double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    -- Virtual finish time of the tenant's last generation.
    vft         double precision NOT NULL DEFAULT 0,
    -- NULL is no bound.
    max_queued  bigint,
    max_running bigint,
    created_at  timestamptz      NOT NULL
);

-- Everybody without a key.
INSERT INTO tenants (id, created_at) VALUES ('default', now());

CREATE TABLE api_keys (
    -- The public part of the key.
    id         text        COLLATE "C" NOT NULL PRIMARY KEY,
    sha256     bytea       NOT NULL CHECK (octet_length(sha256) = 32),
    tenant_id  text        COLLATE "C" NOT NULL REFERENCES tenants (id),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

-- One row: the virtual time, which is the finish time of the generation that was claimed last. Whoever accepts holds the row
-- until it has committed, so that the bounds of the queue are exact.
CREATE TABLE queue_clock (
    v double precision NOT NULL
) WITH (fillfactor = 10);

INSERT INTO queue_clock (v) VALUES (0);

CREATE TABLE generations (
    id                  uuid             NOT NULL PRIMARY KEY,
    tenant_id           text             COLLATE "C" NOT NULL DEFAULT 'default',
    status              text             COLLATE "C" NOT NULL
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')),
    model               text             COLLATE "C" NOT NULL,
    -- How often a worker began it and was not a worker that handed it back.
    attempt             integer          NOT NULL DEFAULT 0,
    -- Grows with every claim and never falls: the number of the only lease that may write.
    fence               bigint           NOT NULL DEFAULT 0,
    -- Grows with every change of the row.
    version             bigint           NOT NULL DEFAULT 1,
    priority            smallint         NOT NULL DEFAULT 1,
    -- Virtual finish time: the place in the queue among generations of one priority.
    vft                 double precision NOT NULL DEFAULT 0,
    cost                double precision NOT NULL DEFAULT 0,
    -- When its priority was raised, or when it was accepted.
    aged_at             timestamptz      NOT NULL,
    -- Not to be claimed before.
    run_at              timestamptz      NOT NULL,
    -- Not to be claimed for the first time from then on; NULL once it was claimed.
    start_deadline      timestamptz,
    -- How often a process ended while it ran; from the first time on it runs alone.
    crash_count         integer          NOT NULL DEFAULT 0,
    dead                boolean          NOT NULL DEFAULT false,
    lease_owner         text,
    lease_expires_at    timestamptz,
    cancel_requested_at timestamptz,
    created_at          timestamptz      NOT NULL,
    started_at          timestamptz,
    finished_at         timestamptz,
    expires_at          timestamptz,
    -- SHA-256 of the request as its client has written it.
    fingerprint         bytea,
    -- Why it failed; the pictures, where it succeeded.
    problem             jsonb,
    images              jsonb,
    -- The whole valid request, with its seed, so that a second run draws the same pictures.
    params              jsonb            NOT NULL,
    CHECK ((status = 'failed') = (problem IS NOT NULL)),
    CHECK ((status = 'succeeded') = (images IS NOT NULL)),
    CHECK ((status IN ('queued', 'running')) = (finished_at IS NULL)),
    CHECK ((finished_at IS NULL) = (expires_at IS NULL)),
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK (NOT dead OR status = 'failed')
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- The claim walks the queued in this order and sorts nothing.
CREATE INDEX generations_claim ON generations (priority DESC, vft, id) WHERE status = 'queued';
CREATE INDEX generations_start ON generations (start_deadline) WHERE status = 'queued';
CREATE INDEX generations_aged ON generations (aged_at) WHERE status = 'queued';
-- The running are few. Their leases' ends stand in no index, so that a renewal touches the row alone.
CREATE INDEX generations_active ON generations (tenant_id, status) WHERE status IN ('queued', 'running');
CREATE INDEX generations_running ON generations (id) WHERE status = 'running';
CREATE INDEX generations_status ON generations (status, id);
CREATE INDEX generations_model ON generations (model, id);
CREATE INDEX generations_tenant ON generations (tenant_id, id);
CREATE INDEX generations_expiry ON generations (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX generations_dead ON generations (id) WHERE dead;

CREATE TABLE generation_events (
    generation_id uuid        NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    -- Counts from 1 without gaps.
    seq           bigint      NOT NULL,
    kind          text        NOT NULL,
    data          jsonb       NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (generation_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- Which generation's request brought along which picture, so that a later request can name it by its digest.
CREATE TABLE generation_inputs (
    -- In hexadecimal digits, of the file in the blob store.
    sha256        text COLLATE "C" NOT NULL,
    generation_id uuid NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    PRIMARY KEY (sha256, generation_id)
);

-- A deleted generation takes its rows along.
CREATE INDEX generation_inputs_generation ON generation_inputs (generation_id);

CREATE TABLE idempotency (
    tenant_id     text        COLLATE "C" NOT NULL,
    key           text        COLLATE "C" NOT NULL,
    fingerprint   bytea       NOT NULL,
    generation_id uuid        NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

CREATE INDEX idempotency_generation ON idempotency (generation_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE workers (
    id         text             COLLATE "C" NOT NULL PRIMARY KEY,
    version    text             NOT NULL,
    -- Names.
    models     jsonb            NOT NULL,
    running    bigint           NOT NULL,
    speed      double precision,
    draining   boolean          NOT NULL DEFAULT false,
    started_at timestamptz      NOT NULL,
    beaten_at  timestamptz      NOT NULL
) WITH (fillfactor = 50);

-- What processes show each other while a generation runs. It survives nothing and is not written to the log of the database; a
-- row stands for the attempt with its fence. Without foreign keys, which would lock the generations that workers write.

CREATE UNLOGGED TABLE generation_progress (
    generation_id uuid   NOT NULL PRIMARY KEY,
    fence         bigint NOT NULL,
    progress      jsonb  NOT NULL
) WITH (fillfactor = 50);

CREATE UNLOGGED TABLE generation_previews (
    generation_id uuid   NOT NULL,
    -- Which image of the generation; the last preview of each is kept.
    image         bigint NOT NULL,
    fence         bigint NOT NULL,
    step          bigint NOT NULL,
    preview_index bigint NOT NULL,
    png           bytea  NOT NULL CHECK (octet_length(png) <= 65536),
    PRIMARY KEY (generation_id, image)
);

-- A PNG file does not become smaller.
ALTER TABLE generation_previews ALTER COLUMN png SET STORAGE EXTERNAL;
