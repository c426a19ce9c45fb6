-- Usage counts films and sounds with their seconds. Processes of the version before leave these columns at 0.

ALTER TABLE daily_usage ADD COLUMN films bigint NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN film_seconds double precision NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN sounds bigint NOT NULL DEFAULT 0;
ALTER TABLE daily_usage ADD COLUMN sound_seconds double precision NOT NULL DEFAULT 0;
