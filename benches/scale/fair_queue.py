"""The queue that tenants share, by the rule of src/ledger/accepting.rs (take_place) and src/ledger/claiming.rs.

Self-clocked fair queueing: a new generation gets the virtual finish time max(its tenant's, the clock's) + cost / weight,
and the clock moves to the latest virtual finish time that was claimed. Claims take the highest priority first, then the
least virtual finish time, then the oldest, and skip tenants that run as many generations as they may (max_running).
Ageing of priorities (queue.ageing_s) is left out: it matters for waits of ten minutes.
"""

import heapq


class Tenant:
    """A tenant: its weight, the most generations that it may run and queue, and its virtual finish time."""

    def __init__(self, name, weight=1.0, max_running=None, max_queued=None):
        self.name, self.weight, self.max_running, self.max_queued = name, weight, max_running, max_queued
        self.vft, self.running, self.waiting = 0.0, 0, []


class FairQueue:
    """`waiting` of each tenant is a heap of (-priority, virtual finish time, id, generation)."""

    def __init__(self, tenants, max_queued=2000):
        self.tenants = {tenant.name: tenant for tenant in tenants}
        self.max_queued, self.clock, self.queued = max_queued, 0.0, 0

    def accept(self, generation):
        """Gives the generation its place. False if the queue is full, or that of its tenant."""
        tenant = self.tenants[generation.tenant]
        own = len(tenant.waiting)
        if self.queued >= self.max_queued or (tenant.max_queued is not None and own >= tenant.max_queued):
            return False
        tenant.vft = max(tenant.vft, self.clock) + generation.cost / tenant.weight
        generation.vft = tenant.vft
        self.put_back(generation)
        return True

    def put_back(self, generation):
        """Queues a generation, new or released, at its virtual finish time."""
        entry = (-generation.priority, generation.vft, generation.id, generation)
        heapq.heappush(self.tenants[generation.tenant].waiting, entry)
        self.queued += 1

    def claim(self, limit):
        """Takes at most `limit` generations in the order of the queue."""
        claimed = []
        while len(claimed) < limit:
            best = None
            for tenant in self.tenants.values():
                is_full = tenant.max_running is not None and tenant.running >= tenant.max_running
                if tenant.waiting and not is_full and (best is None or tenant.waiting[0] < best.waiting[0]):
                    best = tenant
            if best is None:
                break
            generation = heapq.heappop(best.waiting)[3]
            best.running += 1
            self.queued -= 1
            claimed.append(generation)
        if claimed:
            self.clock = max(self.clock, max(generation.vft for generation in claimed))
        return claimed

    def leave(self, generation):
        """The generation runs no more: it has ended, or goes back to the queue."""
        self.tenants[generation.tenant].running -= 1
