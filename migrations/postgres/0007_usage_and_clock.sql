-- In the collation of api_keys, so that searches by these columns use the indexes.
ALTER TABLE daily_usage
    ALTER COLUMN tenant_id TYPE text COLLATE "C",
    ALTER COLUMN key_id    TYPE text COLLATE "C";

-- Requests lock the clock of the queue and then the tenant. Processes that do not know the columns of 0006 write the event
-- of a claim and then lock the clock, so the trigger locks the clock for them.
CREATE OR REPLACE FUNCTION generation_events_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'started' THEN
        PERFORM 1 FROM queue_clock FOR UPDATE;
    END IF;
    UPDATE tenants SET last_event = last_event + 1
    WHERE id = (SELECT generations.tenant_id FROM generations WHERE generations.id = NEW.generation_id)
    RETURNING id, last_event INTO NEW.tenant_id, NEW.tenant_seq;
    RETURN NEW;
END
$$;
