-- Who is told of generations by HTTP, and what is still to be told.

CREATE TABLE webhook_endpoints (
    id               uuid        NOT NULL PRIMARY KEY,
    tenant_id        text        NOT NULL,
    url              text        NOT NULL,
    -- Words.
    events           jsonb       NOT NULL,
    description      text        NOT NULL,
    enabled          boolean     NOT NULL,
    -- It answered 410.
    gone             boolean     NOT NULL DEFAULT false,
    -- What signs must be known, so these are kept as they are.
    secret           text        NOT NULL,
    -- The one before, and until when it signs too.
    old_secret       text,
    old_secret_until timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
);

CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant_id, id);

CREATE TABLE webhook_deliveries (
    id            uuid        NOT NULL PRIMARY KEY,
    -- No reference: what is pending outlives its generation.
    generation_id uuid        NOT NULL,
    -- Of the event: deliveries of one generation go in this order.
    seq           bigint      NOT NULL,
    -- Either of the two.
    endpoint_id   uuid        REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    url           text,
    -- The endpoint, or scheme, host and port of the address: by it a slow receiver is told apart from others.
    receiver      text        NOT NULL,
    kind          text        NOT NULL,
    state         text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    -- Tries that were begun.
    attempts      integer     NOT NULL DEFAULT 0,
    -- Grows with every claim and with its end: the number of the only claim that may write.
    fence         bigint      NOT NULL DEFAULT 0,
    -- Not to be claimed before; a claim moves it behind the claim's end.
    due_at        timestamptz NOT NULL,
    last_status   integer,
    last_error    text,
    last_at       timestamptz,
    created_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    expires_at    timestamptz,
    -- The bytes that are signed and sent, therefore not jsonb.
    body          text        NOT NULL,
    CHECK ((endpoint_id IS NULL) <> (url IS NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (expires_at IS NULL))
);

CREATE UNIQUE INDEX webhook_deliveries_order ON webhook_deliveries (generation_id, seq);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (generation_id, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_expiry ON webhook_deliveries (expires_at) WHERE expires_at IS NOT NULL;
