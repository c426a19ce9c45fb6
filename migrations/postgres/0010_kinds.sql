-- What a generation makes: pictures or sounds. Lists have generations of one kind. Processes of the version before
-- accept pictures alone, so they leave the default.

ALTER TABLE generations ADD COLUMN kind text NOT NULL DEFAULT 'draw' CHECK (kind IN ('draw', 'sound'));

CREATE INDEX generations_sounds ON generations (tenant_id, id) WHERE kind = 'sound';
