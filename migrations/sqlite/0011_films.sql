-- Generations may make films. SQLite cannot change the check of a column, so the column gets a successor.

DROP INDEX generations_sounds;
ALTER TABLE generations RENAME COLUMN kind TO kind_before_films;
ALTER TABLE generations ADD COLUMN kind TEXT NOT NULL DEFAULT 'draw' CHECK (kind IN ('draw', 'sound', 'film'));
UPDATE generations SET kind = kind_before_films WHERE kind_before_films <> 'draw';
ALTER TABLE generations DROP COLUMN kind_before_films;

CREATE INDEX generations_sounds ON generations (tenant_id, id) WHERE kind = 'sound';
CREATE INDEX generations_films ON generations (tenant_id, id) WHERE kind = 'film';
