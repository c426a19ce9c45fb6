-- What queued work is estimated to cost in seconds, for metrics.

-- The work of generations of a model that have succeeded lately, in 10⁹ multiplications, and the seconds that the
-- worker took for it. Earlier generations count less and less.
CREATE TABLE model_speeds (
    model   TEXT NOT NULL PRIMARY KEY,
    work    REAL NOT NULL CHECK (work > 0),
    seconds REAL NOT NULL CHECK (seconds > 0)
) STRICT, WITHOUT ROWID;

-- Seconds that one worker is estimated to take, at the acceptance.
ALTER TABLE generations ADD COLUMN estimated_s REAL NOT NULL DEFAULT 10.0;
