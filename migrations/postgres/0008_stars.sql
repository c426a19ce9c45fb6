-- Generations with a star are kept until the star is taken away. Their expires_at is a century away, so that processes
-- of the version before, which do not know the column, keep them too.

ALTER TABLE generations ADD COLUMN starred boolean NOT NULL DEFAULT false;

CREATE INDEX generations_starred ON generations (tenant_id, id) WHERE starred;
