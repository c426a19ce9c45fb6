-- Generations with a star are kept until the star is taken away. Their expires_at is a century away.

ALTER TABLE generations ADD COLUMN starred INTEGER NOT NULL DEFAULT 0;

CREATE INDEX generations_starred ON generations (tenant_id, id) WHERE starred;
