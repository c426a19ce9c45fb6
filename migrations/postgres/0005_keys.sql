-- What a key may do, how long it is valid, and what it has used. Processes of the version before go on with the columns
-- that they know: they find and create keys without terms, and neither apply limits nor count usage.

-- Name, scopes, models, limits. What is absent has the default: a key of before may do everything it could.
ALTER TABLE api_keys ADD COLUMN terms            jsonb       NOT NULL DEFAULT '{}';
ALTER TABLE api_keys ADD COLUMN last_used_at     timestamptz;
ALTER TABLE api_keys ADD COLUMN expires_at       timestamptz;
-- The digest of the secret before the last rotation, and until when it is valid.
ALTER TABLE api_keys ADD COLUMN old_sha256       bytea       CHECK (octet_length(old_sha256) = 32);
ALTER TABLE api_keys ADD COLUMN old_sha256_until timestamptz;
-- The current window of the rate limit: when it began, and how many generations were accepted in it.
ALTER TABLE api_keys ADD COLUMN window_began     timestamptz;
ALTER TABLE api_keys ADD COLUMN window_used      bigint      NOT NULL DEFAULT 0;

-- What was accepted on one day (UTC) with one key; the key '' stands for requests without a key.
CREATE TABLE daily_usage (
    tenant_id   text             NOT NULL,
    key_id      text             NOT NULL,
    -- Such as 2026-11-29.
    day         text             NOT NULL,
    generations bigint           NOT NULL,
    images      bigint           NOT NULL,
    -- In the unit of generations.cost.
    cost        double precision NOT NULL,
    -- Of the last one.
    last_at     timestamptz      NOT NULL,
    PRIMARY KEY (tenant_id, key_id, day)
);

CREATE INDEX daily_usage_days ON daily_usage (tenant_id, day);
CREATE INDEX daily_usage_age ON daily_usage (last_at);
