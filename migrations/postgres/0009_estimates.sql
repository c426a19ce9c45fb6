-- What queued work is estimated to cost in seconds, for metrics and for autoscalers.

-- The work of generations of a model that have succeeded lately, in 10⁹ multiplications, and the seconds that workers
-- took for it. Earlier generations count less and less.
CREATE TABLE model_speeds (
    model   text             COLLATE "C" NOT NULL PRIMARY KEY,
    work    double precision NOT NULL CHECK (work > 0),
    seconds double precision NOT NULL CHECK (seconds > 0)
) WITH (fillfactor = 50);

-- Seconds that one worker is estimated to take, at the acceptance. Processes of the version before leave the default.
ALTER TABLE generations ADD COLUMN estimated_s double precision NOT NULL DEFAULT 10;

-- What is left to compute, by model, without requests: a role that may only read this view sees nothing else. Running
-- generations count in full until they end, so that an autoscaler does not stop workers that compute.
CREATE VIEW queued_work AS
SELECT model, count(*) AS generations, sum(estimated_s) AS seconds
FROM generations
WHERE status IN ('queued', 'running')
GROUP BY model;
