"""What computes in the simulation: the clock with its events, cores that share their time, and the database."""

import heapq


class Clock:
    """The events in their order. Equal times keep the order in which they were made, so a seed gives one result."""

    def __init__(self):
        self.now, self.made, self.events = 0.0, 0, []

    def at(self, time, call, *values):
        self.made += 1
        heapq.heappush(self.events, (time, self.made, call, values))

    def after(self, seconds, call, *values):
        self.at(self.now + seconds, call, *values)

    def run(self, until):
        """Handles the events up to the time `until`."""
        while self.events and self.events[0][0] <= until:
            self.now, _, call, values = heapq.heappop(self.events)
            call(*values)
        self.now = max(self.now, until)


class Cores:
    """Cores that share their time equally among tasks of one thread each: with n tasks, each has the speed
    min(1, cores / n). `cores` may be a fraction, because two hardware threads of one core are less than two cores. It may
    also be a list of (tasks, cores): what the machine does with so many tasks, and between two points, linearly more or
    less. The more tasks, the more often they displace one another from the caches.

    Equal shares need one number, the work that each task has received since the start (`shared`): a task ends when this
    number has grown by the task's own work.
    """

    def __init__(self, clock, cores):
        self.clock, self.points = clock, cores if isinstance(cores, list) else [(1, min(1.0, cores)), (cores, cores)]
        self.shared, self.since, self.tasks, self.version, self.made = 0.0, 0.0, [], 0, 0
        self.busy = 0.0

    def add(self, work, call, *values):
        """A task of `work` seconds of one core, and what to call at its end."""
        self.advance()
        self.made += 1
        heapq.heappush(self.tasks, (self.shared + work, self.made, call, values))
        self.plan()

    def speed(self):
        return self.cores(len(self.tasks)) / len(self.tasks) if self.tasks else 0.0

    def cores(self, tasks):
        """Seconds of a core that the machine computes in a second with so many tasks."""
        if tasks == 0:
            return 0.0
        (low, less), *rest = self.points
        for high, more in rest:
            if tasks <= high:
                return less if high == low else less + (more - less) * (tasks - low) / (high - low)
            low, less = high, more
        return less

    def advance(self):
        seconds, self.since = self.clock.now - self.since, self.clock.now
        self.shared += seconds * self.speed()
        self.busy += seconds * self.cores(len(self.tasks))

    def plan(self):
        self.version += 1
        if self.tasks:
            self.clock.after(max(0.0, self.tasks[0][0] - self.shared) / self.speed(), self.end, self.version)

    def end(self, version):
        if version != self.version:
            return
        self.advance()
        self.shared = max(self.shared, self.tasks[0][0])
        _, _, call, values = heapq.heappop(self.tasks)
        self.plan()
        call(*values)


class Database:
    """One PostgreSQL. Each operation takes a part of its capacity: an operation of which it carries N a second takes
    1/N s, and operations wait for each other in the order of their arrival. `costs` are these times; `alone` are the
    seconds that an operation takes at least, however idle the database is."""

    def __init__(self, clock, costs, alone):
        self.clock, self.costs, self.alone = clock, costs, alone
        self.free_at, self.busy, self.counts = 0.0, 0.0, {}

    def call(self, operation, times, call, *values):
        """`times` scales the cost: the rows of a claim."""
        self.counts[operation] = self.counts.get(operation, 0) + 1
        cost = self.cost(operation, times)
        self.busy += cost
        self.free_at = max(self.free_at, self.clock.now) + cost
        self.clock.at(max(self.free_at, self.clock.now + self.alone.get(operation, 0.0)), call, *values)

    def cost(self, operation, times):
        cost = self.costs.get(operation, 0.0)
        return cost[0] + cost[1] * times if isinstance(cost, tuple) else cost


class DatabaseOnCores(Database):
    """A database that computes on the same cores as everything else."""

    def __init__(self, clock, costs, cores):
        super().__init__(clock, costs, {})
        self.cores = cores

    def call(self, operation, times, call, *values):
        self.counts[operation] = self.counts.get(operation, 0) + 1
        cost = self.cost(operation, times)
        self.busy += cost
        self.cores.add(cost, call, *values)
