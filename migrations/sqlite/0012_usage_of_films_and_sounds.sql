-- Usage counts films and sounds with their seconds. Processes of the version before leave these columns at 0.

ALTER TABLE daily_usage ADD COLUMN films INTEGER NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN film_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN sounds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN sound_seconds REAL NOT NULL DEFAULT 0;
