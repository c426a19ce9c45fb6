-- Generations may make films. Processes of the version before accept pictures and sounds alone.

ALTER TABLE generations DROP CONSTRAINT generations_kind_check;
ALTER TABLE generations ADD CONSTRAINT generations_kind_check CHECK (kind IN ('draw', 'sound', 'film'));

CREATE INDEX generations_films ON generations (tenant_id, id) WHERE kind = 'film';
