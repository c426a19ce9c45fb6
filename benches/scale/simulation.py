"""A discrete-event simulation of a group of processes on one PostgreSQL.

Generations arrive, wait in the fair queue, are claimed by workers, computed in batches and ended; workers are replaced
or lost meanwhile. What the parts do is in fair_queue.py, engine.py, worker.py and stations.py. All times are seconds.
"""

from dataclasses import dataclass, field
from random import Random

from engine import Model
from fair_queue import FairQueue, Tenant
from stations import Clock, Cores, Database, DatabaseOnCores
from worker import HINT_S, Worker


@dataclass
class Settings:
    """A group. The defaults are those of config/latentd.toml."""

    model: Model
    workers: int = 1
    apis: int = 4
    slots: int = 32
    max_rows: int = 16
    slice_s: float = 0.04
    max_queued: int = 2000
    checkpoint_s: float = 2.0
    heartbeat_s: float = 5.0
    lease_s: float = 30.0
    reap_s: float = 5.0
    backoff_s: float = 1.0
    # Seconds of a new worker until it claims: its process starts and loads the model.
    start_s: float = 20.0
    # Cores that all workers share, with the database and the api processes; None: a device for each worker.
    shared_cores: float | None = None
    # Seconds of a core for each request, outside the engines and the database.
    accept_s: float = 0.0
    # Costs of the database's operations in seconds of its capacity, and their least times; see stations.py.
    costs: dict = field(default_factory=dict)
    alone: dict = field(default_factory=dict)
    # Whether notifications arrive. If not, as with PgBouncer in transaction mode, workers look once a second.
    listens: bool = True
    # Whether workers report progress and send heartbeats.
    reports: bool = True


class Generation:
    __slots__ = ("id", "tenant", "cost", "priority", "vft", "arrived_at", "accepted_at", "started_at", "ended_at", "saved",
                 "build", "attempts")

    def __init__(self, id, tenant, cost, arrived_at, priority=1):
        self.id, self.tenant, self.cost, self.priority, self.arrived_at = id, tenant, cost, priority, arrived_at
        self.vft, self.accepted_at, self.started_at, self.ended_at = 0.0, None, None, None
        self.saved, self.build, self.attempts = 0, 0, 0


class Group:
    def __init__(self, settings, tenants, seed=1):
        self.settings, self.random, self.clock = settings, Random(seed), Clock()
        self.queue = FairQueue(tenants, settings.max_queued)
        self.generations, self.refused = [], 0
        self.shared = Cores(self.clock, settings.shared_cores) if settings.shared_cores else None
        if self.shared:
            self.database = DatabaseOnCores(self.clock, settings.costs, self.shared)
        else:
            self.database = Database(self.clock, settings.costs, settings.alone)
        self.told = [False] * settings.apis
        self.retired = []
        self.workers = [self.new_worker() for _ in range(settings.workers)]

    def new_worker(self, build=0):
        return Worker(self, self.shared or Cores(self.clock, 1.0), build)

    def listeners(self):
        return self.settings.apis + len(self.workers) if self.settings.listens else 0

    def arrive(self, tenant, times, cost=1.0):
        """Generations of `tenant` at these times."""
        for time in times:
            self.clock.at(time, self.request, tenant, cost)

    def request(self, tenant, cost):
        generation = Generation(len(self.generations), tenant, cost, self.clock.now)
        self.generations.append(generation)
        accept = self.database.call, "accept", 1, self.accept, generation
        if self.settings.accept_s and self.shared:
            self.shared.add(self.settings.accept_s, *accept)
        else:
            accept[0](*accept[1:])

    def accept(self, generation):
        if not self.queue.accept(generation):
            self.refused += 1
            return
        generation.accepted_at = self.clock.now
        self.tell()

    def tell(self):
        """One of the api processes sends a hint within 50 ms, and all workers with room look at the queue."""
        api = self.random.randrange(self.settings.apis)
        if self.settings.listens and not self.told[api]:
            self.told[api] = True
            self.clock.after(self.random.random() * HINT_S, self.hint, api)

    def hint(self, api):
        self.told[api] = False
        self.database.call("hint", self.listeners(), self.wake)

    def wake(self):
        workers = list(self.workers)
        self.random.shuffle(workers)
        for worker in workers:
            worker.wake()

    def put_back(self, generation):
        """A generation of a lost or stopped worker is queued again."""
        self.queue.leave(generation)
        self.queue.put_back(generation)
        self.tell()

    def end(self, generation):
        assert generation.ended_at is None, f"generation {generation.id} ends twice"
        generation.ended_at = self.clock.now
        self.queue.leave(generation)

    def deploy(self, at, together=1):
        """Replaces all workers by a new build from the time `at`, `together` at a time."""
        self.clock.at(at, self.replace, list(self.workers), together)

    def replace(self, old, together):
        for worker in old[:together]:
            worker.drain()
            self.clock.after(self.settings.start_s, self.renew, worker, worker.build + 1)
        if old[together:]:
            self.clock.after(self.settings.start_s, self.replace, old[together:], together)

    def lose(self, at, count=1, after=60.0):
        """At the time `at`, the nodes of `count` workers are lost; others replace them `after` seconds later."""
        self.clock.at(at, self.lose_now, count, after)

    def lose_now(self, count, after):
        alive = [worker for worker in self.workers if not worker.is_over]
        for worker in self.random.sample(alive, min(count, len(alive))):
            worker.kill()
            self.clock.after(after + self.settings.start_s, self.renew, worker, worker.build)

    def renew(self, old, build):
        self.retired.append(old)
        self.workers[self.workers.index(old)] = self.new_worker(build)

    def run(self, until, drain=0.0):
        """Runs to the time `until`, and up to `drain` seconds longer until everything has ended."""
        self.clock.run(until)
        self.until = until
        while drain > 0 and any(g.accepted_at is not None and g.ended_at is None for g in self.generations):
            step = min(1.0, drain)
            self.clock.run(self.clock.now + step)
            drain -= step

    def result(self, since=0.0):
        """Measurements of the generations that arrived after `since`."""
        seconds = self.until - since
        counted = [g for g in self.generations if since <= g.arrived_at < self.until and g.accepted_at is not None]
        ended = [g for g in self.generations if g.ended_at is not None and since <= g.ended_at < self.until]
        engines = [worker.engine for worker in self.workers + self.retired]
        batches = sum(engine.batches for engine in engines)
        return {
            "pictures_per_s": len(ended) / seconds,
            "utilization": sum(engine.busy for engine in engines) / (self.clock.now * len(self.workers)),
            "rows": sum(engine.rows for engine in engines) / max(1, batches),
            "refused": self.refused,
            "starts": waits(counted, lambda g: g.started_at),
            "ends": waits(counted, lambda g: g.ended_at),
            "starts_of": {
                name: waits([g for g in counted if g.tenant == name], lambda g: g.started_at) for name in self.queue.tenants
            },
            "database": self.database.busy / self.clock.now,
            "per_s": {name: count / self.clock.now for name, count in sorted(self.database.counts.items())},
        }


def waits(generations, of):
    """(p50, p95) of the seconds from the arrival; None for too few."""
    seconds = sorted(of(g) - g.arrived_at for g in generations if of(g) is not None)
    return (quantile(seconds, 0.5), quantile(seconds, 0.95)) if seconds else (None, None)


def quantile(ordered, part):
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def tenants_of(names):
    return [Tenant(name) for name in names]
