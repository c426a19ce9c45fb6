"""Tests of the simulation: `python3 benches/scale/test_simulation.py`. Each has a fixed seed."""

import math
import unittest
from random import Random

from arrivals import bursts, poisson
from engine import Model
from fair_queue import FairQueue, Tenant
from simulation import Generation, Group, Settings, tenants_of
from stations import Clock, Cores, Database

SEED = 20


def station(model, workers, slots=1, **more):
    """Workers that answer at once: no cost of the database, no polls of one second between claims."""
    settings = {"reports": False, "max_queued": 10**9, "max_rows": 1, "slice_s": 1e9, "apis": 1, **more}
    return Group(Settings(model, workers=workers, slots=slots, **settings), tenants_of(["one"]), SEED)


def at_once(group):
    """Hints arrive without delay, as formulas assume."""
    group.tell = group.wake
    return group


class Cutting(unittest.TestCase):
    def test_m_m_1(self):
        """One core, times of service of an exponential distribution: mean time in the system 1 / (mu - lambda)."""
        random, clock, times = Random(SEED), Clock(), []
        cores = Cores(clock, 1.0)
        for at in poisson(random, 0.7, 100_000):
            clock.at(at, lambda at=at: cores.add(random.expovariate(1.0), lambda: times.append(clock.now - at)))
        clock.run(150_000)
        # Processor sharing and first come, first served have the same mean.
        self.assertAlmostEqual(sum(times) / len(times), 1 / 0.3, delta=0.1 / 0.3)

    def test_m_m_1_of_the_database(self):
        random, clock, times = Random(SEED), Clock(), []
        database = Database(clock, {"x": (0.0, 1.0)}, {})
        for at in poisson(random, 0.7, 100_000):
            work = random.expovariate(1.0)
            clock.at(at, lambda at=at, work=work: database.call("x", work, lambda: times.append(clock.now - at)))
        clock.run(150_000)
        self.assertAlmostEqual(sum(times) / len(times), 1 / 0.3, delta=0.1 / 0.3)
        self.assertAlmostEqual(database.busy / 100_000, 0.7, delta=0.01)

    def test_m_d_1(self):
        """One worker, equal generations: mean wait rho / (2 mu (1 - rho)), by Pollaczek and Khinchine."""
        mean = self.mean_wait(1, 0.8)
        self.assertAlmostEqual(mean, 0.8 / (2 * 0.2), delta=0.1 * 2.0)

    def test_m_d_c(self):
        """Four workers: by Cosmetatos' approximation, whose error is about one percent."""
        c, rho = 4, 0.85
        offered = c * rho
        erlang = offered**c / math.factorial(c) / (1 - rho)
        erlang /= erlang + sum(offered**k / math.factorial(k) for k in range(c))
        m_m_c = erlang / (c * (1 - rho))
        factor = 1 + (1 - rho) * (c - 1) * (math.sqrt(4 + 5 * c) - 2) / (16 * rho * c)
        self.assertAlmostEqual(self.mean_wait(c, rho), m_m_c * factor / 2, delta=0.1 * m_m_c * factor / 2)

    def mean_wait(self, workers, rho):
        """The mean seconds in the queue. A generation takes one second of one of the workers."""
        group = at_once(station(Model(step=(0.0, 1.0), encode=(0.0, 0.0), decode=(0.0, 0.0), steps=1, rows=1), workers))
        group.arrive("one", poisson(Random(SEED), rho * workers, 30_000))
        group.run(30_000, drain=1000)
        seconds = [g.started_at - g.arrived_at for g in group.generations]
        return sum(seconds) / len(seconds)

    def test_batches_share_their_constant_part(self):
        """Generations of s steps with full batches of r rows: r / (2 (a + b r) s) a second."""
        model = Model(step=(0.06, 0.01), encode=(0.0, 0.0), decode=(0.0, 0.0), steps=10)
        group = station(model, 1, slots=32, max_rows=16)
        group.arrive("one", [0.0] * 400)
        group.run(60.0)
        full = 16 / (2 * (0.06 + 0.01 * 16) * 10)
        self.assertAlmostEqual(group.result(5.0)["pictures_per_s"], full, delta=0.05 * full)
        self.assertAlmostEqual(model.full_rate(16, 1e9), full, delta=1e-9)


class Shares(unittest.TestCase):
    def test_tenants_share_by_weight(self):
        queue = FairQueue([Tenant("one"), Tenant("two", 2.0), Tenant("four", 4.0)])
        for number in range(480):
            queue.accept(Generation(number, ("one", "two", "four")[number % 3], 1.0 + number % 5 / 4, 0.0))
        cost = {}
        for generation in (queue.claim(1)[0] for _ in range(240)):
            cost[generation.tenant] = cost.get(generation.tenant, 0.0) + generation.cost
        for name, weight in (("two", 2), ("four", 4)):
            self.assertAlmostEqual(cost[name] / cost["one"], weight, delta=0.1 * weight)

    def test_idle_tenants_save_nothing(self):
        """The case `new_and_returning_tenants_have_no_credit` of tests/ledger/sharing.rs."""
        queue = FairQueue([Tenant("idle"), Tenant("busy"), Tenant("new")])
        made = iter(range(10**6))
        accept = lambda name: queue.accept(Generation(next(made), name, 1.0, 0.0))  # noqa: E731
        accept("idle")
        all(accept("busy") for _ in range(60))
        self.assertEqual([g.tenant for g in queue.claim(41)].count("busy"), 40)
        for _ in range(20):
            accept("idle")
            accept("new")
        names = [g.tenant for g in queue.claim(30)]
        self.assertTrue(all(9 <= names.count(name) <= 11 for name in ("idle", "busy", "new")), names)

    def test_a_tenant_runs_at_most_its_maximum(self):
        queue = FairQueue([Tenant("small", max_running=2), Tenant("other")])
        for number in range(10):
            queue.accept(Generation(number, ("small", "other")[number % 2], 1.0, 0.0))
        claimed = queue.claim(9)
        self.assertEqual([g.tenant for g in claimed].count("small"), 2)
        queue.leave(claimed[0])
        self.assertEqual([g.tenant for g in queue.claim(9)], ["small"])


class Losses(unittest.TestCase):
    MODEL = Model(step=(0.02, 0.005), encode=(0.01, 0.0), decode=(0.0, 0.02), steps=20, finish_s=0.005)

    def group(self, seed=SEED):
        costs = {"accept": 0.001, "claim": (0.001, 0.0005), "look": 0.0003, "finish": 0.001, "hint": (1e-4, 1e-5),
                 "report": 0.0005, "beat": 0.0005, "count": 0.0001}
        settings = Settings(self.MODEL, workers=6, slots=8, costs=costs, start_s=5.0)
        group = Group(settings, tenants_of(["one", "two", "three"]), seed)
        random = Random(seed)
        for name in group.queue.tenants:
            group.arrive(name, bursts(random, 3.0, 200.0))
        group.deploy(40.0)
        group.lose(100.0, count=2, after=10.0)
        group.run(200.0, drain=300.0)
        return group

    def test_every_accepted_generation_ends_once(self):
        group = self.group()
        accepted = [g for g in group.generations if g.accepted_at is not None]
        self.assertGreater(len(accepted), 1000)
        self.assertEqual(len(accepted) + group.refused, len(group.generations))
        self.assertTrue(all(g.ended_at is not None for g in accepted))
        self.assertTrue(all(g.arrived_at < g.accepted_at <= g.started_at < g.ended_at for g in accepted))
        self.assertTrue(any(g.attempts > 1 for g in accepted), "no worker was stopped while it computed")
        self.assertEqual((group.queue.queued, sum(t.running for t in group.queue.tenants.values())), (0, 0))

    def test_a_seed_gives_one_result(self):
        self.assertEqual(self.group().result(), self.group().result())
        self.assertNotEqual(self.group().result(), self.group(SEED + 1).result())

    def test_a_lost_worker_costs_its_lease_and_little_work(self):
        group = self.group()
        lost = [g for g in group.generations if g.attempts > 1 and g.started_at < 100.0 < g.ended_at]
        self.assertTrue(lost)
        self.assertTrue(all(25.0 < g.ended_at - 100.0 < 60.0 for g in lost if g.ended_at > 125.0))

    def test_bursts_keep_the_mean_rate(self):
        times = bursts(Random(SEED), 5.0, 100_000)
        self.assertAlmostEqual(len(times) / 100_000, 5.0, delta=0.15)


if __name__ == "__main__":
    unittest.main()
