-- Who is told of generations by HTTP, and what is still to be told.

CREATE TABLE webhook_endpoints (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id        TEXT    NOT NULL,
    url              TEXT    NOT NULL,
    -- JSON: words.
    events           TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    enabled          INTEGER NOT NULL,
    -- It answered 410.
    gone             INTEGER NOT NULL DEFAULT 0,
    -- What signs must be known, so these are kept as they are.
    secret           TEXT    NOT NULL,
    -- The one before, and until when it signs too.
    old_secret       TEXT,
    old_secret_until INTEGER,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
) STRICT;

CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant_id, id);

CREATE TABLE webhook_deliveries (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- No reference: what is pending outlives its generation.
    generation_id BLOB    NOT NULL,
    -- Of the event: deliveries of one generation go in this order.
    seq           INTEGER NOT NULL,
    -- Either of the two.
    endpoint_id   BLOB    REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    url           TEXT,
    -- The endpoint, or scheme, host and port of the address: by it a slow receiver is told apart from others.
    receiver      TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    state         TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    -- Tries that were begun.
    attempts      INTEGER NOT NULL DEFAULT 0,
    -- Grows with every claim and with its end: the number of the only claim that may write.
    fence         INTEGER NOT NULL DEFAULT 0,
    -- Not to be claimed before; a claim moves it behind the claim's end.
    due_at        INTEGER NOT NULL,
    last_status   INTEGER,
    last_error    TEXT,
    last_at       INTEGER,
    created_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    expires_at    INTEGER,
    -- The bytes that are signed and sent.
    body          TEXT    NOT NULL,
    CHECK ((endpoint_id IS NULL) <> (url IS NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (expires_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX webhook_deliveries_order ON webhook_deliveries (generation_id, seq);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (generation_id, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_expiry ON webhook_deliveries (expires_at) WHERE expires_at IS NOT NULL;
