-- One stream with the events of all generations of a tenant: its events have one order, in which they are committed.

ALTER TABLE tenants ADD COLUMN last_event bigint NOT NULL DEFAULT 0;

-- Events that were written before have no number, and are not in that stream.
ALTER TABLE generation_events ADD COLUMN tenant_id  text COLLATE "C";
ALTER TABLE generation_events ADD COLUMN tenant_seq bigint;

CREATE UNIQUE INDEX generation_events_tenant ON generation_events (tenant_id, tenant_seq) WHERE tenant_seq IS NOT NULL;

-- A trigger, so that processes of the version before, which do not know the columns, number their events too. The update
-- holds the row of the tenant until the commit. So the next number is given only when this event can be read, and a
-- reader that has seen a number misses none before it.
CREATE FUNCTION generation_events_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tenants SET last_event = last_event + 1
    WHERE id = (SELECT generations.tenant_id FROM generations WHERE generations.id = NEW.generation_id)
    RETURNING id, last_event INTO NEW.tenant_id, NEW.tenant_seq;
    RETURN NEW;
END
$$;

CREATE TRIGGER generation_events_number BEFORE INSERT ON generation_events
    FOR EACH ROW EXECUTE FUNCTION generation_events_number();
