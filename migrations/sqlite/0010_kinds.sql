-- What a generation makes: pictures or sounds. Lists have generations of one kind.

ALTER TABLE generations ADD COLUMN kind TEXT NOT NULL DEFAULT 'draw' CHECK (kind IN ('draw', 'sound'));

CREATE INDEX generations_sounds ON generations (tenant_id, id) WHERE kind = 'sound';
