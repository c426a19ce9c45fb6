-- One stream with the events of all generations of a tenant: its events have one order.

ALTER TABLE tenants ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;

-- Events that were written before have no number, and are not in that stream.
ALTER TABLE generation_events ADD COLUMN tenant_id  TEXT;
ALTER TABLE generation_events ADD COLUMN tenant_seq INTEGER;

CREATE UNIQUE INDEX generation_events_tenant ON generation_events (tenant_id, tenant_seq) WHERE tenant_seq IS NOT NULL;

CREATE TRIGGER generation_events_number AFTER INSERT ON generation_events
BEGIN
    UPDATE tenants SET last_event = last_event + 1
    WHERE id = (SELECT tenant_id FROM generations WHERE id = NEW.generation_id);
    UPDATE generation_events SET (tenant_id, tenant_seq) = (
        SELECT tenants.id, tenants.last_event FROM generations JOIN tenants ON tenants.id = generations.tenant_id
        WHERE generations.id = NEW.generation_id)
    WHERE generation_id = NEW.generation_id AND seq = NEW.seq;
END;
