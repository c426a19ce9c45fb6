-- The trigger gives artifacts to the rows that were written before it existed. A transaction of its own: the migration
-- before this one locks the whole table, and must not do so for as long as this one takes.

UPDATE generations SET images = images WHERE status = 'succeeded' AND artifacts IS NULL;
