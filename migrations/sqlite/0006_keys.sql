-- What a key may do, how long it is valid, and what it has used.

-- JSON: name, scopes, models, limits. What is absent has the default: a key of before may do everything it could.
ALTER TABLE api_keys ADD COLUMN terms            TEXT    NOT NULL DEFAULT '{}';
ALTER TABLE api_keys ADD COLUMN last_used_at     INTEGER;
ALTER TABLE api_keys ADD COLUMN expires_at       INTEGER;
-- The digest of the secret before the last rotation, and until when it is valid.
ALTER TABLE api_keys ADD COLUMN old_sha256       BLOB    CHECK (length(old_sha256) = 32);
ALTER TABLE api_keys ADD COLUMN old_sha256_until INTEGER;
-- The current window of the rate limit: when it began, and how many generations were accepted in it.
ALTER TABLE api_keys ADD COLUMN window_began     INTEGER;
ALTER TABLE api_keys ADD COLUMN window_used      INTEGER NOT NULL DEFAULT 0;

-- What was accepted on one day (UTC) with one key; the key '' stands for requests without a key.
CREATE TABLE daily_usage (
    tenant_id   TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    -- Such as 2026-11-29.
    day         TEXT    NOT NULL,
    generations INTEGER NOT NULL,
    images      INTEGER NOT NULL,
    -- In the unit of generations.cost.
    cost        REAL    NOT NULL,
    -- Of the last one.
    last_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key_id, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX daily_usage_days ON daily_usage (tenant_id, day);
CREATE INDEX daily_usage_age ON daily_usage (last_at);
