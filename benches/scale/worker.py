"""A worker: claims, computes, ends, and reports, as src/worker.rs and src/service/bus.rs do."""

from engine import Engine

POLL_S = 1.0
HINT_S = 0.05
REPORT_S = 0.5


class Worker:
    def __init__(self, group, cores, build=0):
        self.group, self.cores, self.build = group, cores, build
        self.clock, self.database, self.random = group.clock, group.database, group.random
        self.is_over, self.is_draining = False, False
        self.start()

    def start(self):
        self.held, self.is_awake, self.is_looping, self.timer, self.tells = {}, False, False, 0, False
        settings = self.group.settings
        limits = settings.max_rows, settings.slice_s, settings.checkpoint_s
        self.engine = Engine(self.clock, self.cores, settings.model, self.computed, *limits)
        self.clock.after(self.random.random() * POLL_S, self.loop)
        if settings.reports:
            self.clock.after(self.random.random() * REPORT_S, self.report)
            self.clock.after(self.random.random() * settings.heartbeat_s, self.beat)

    def room(self):
        return 0 if self.is_draining else self.group.settings.slots - len(self.held)

    def wake(self):
        """Looks at the queue now, or again after the look that is under way."""
        if self.is_over or self.is_looping:
            self.is_awake = True
        else:
            self.loop()

    def loop(self, timer=None):
        if self.is_over or self.is_looping or (timer is not None and timer != self.timer):
            return
        self.is_looping, self.is_awake = True, False
        room, queued = self.room(), self.group.queue.queued
        if room > 0 and queued > 0:
            self.database.call("claim", min(room, queued), self.claim)
        elif room > 0:
            self.database.call("look", 1, self.claim)
        else:
            self.database.call("count", 1, self.sleep)

    def claim(self):
        if not self.is_over:
            for generation in self.group.queue.claim(self.room()):
                self.begin(generation)
        self.sleep()

    def sleep(self):
        self.is_looping = False
        if self.is_over:
            return
        if self.is_awake:
            self.loop()
            return
        self.timer += 1
        self.clock.after(POLL_S, self.loop, self.timer)

    def begin(self, generation):
        if generation.started_at is None:
            generation.started_at = self.clock.now
        generation.attempts += 1
        self.held[generation.id] = generation
        self.tell()
        # A build does not use what another build has stored.
        done = generation.saved if generation.build == self.build else 0
        generation.build = self.build
        self.engine.enter(generation, done)

    def computed(self, generation):
        self.cores.add(self.group.settings.model.finish_s, self.finish, generation)

    def finish(self, generation):
        if not self.is_over and generation.id in self.held:
            self.database.call("finish", 1, self.ended, generation)

    def ended(self, generation):
        if self.is_over or self.held.pop(generation.id, None) is None:
            return
        self.group.end(generation)
        self.tell()
        self.wake()

    def tell(self):
        """Sends a hint within 50 ms; several changes in this time are one hint."""
        if not self.tells and self.group.settings.reports:
            self.tells = True
            self.clock.after(self.random.random() * HINT_S, self.hint)

    def hint(self):
        self.tells = False
        if not self.is_over:
            self.database.call("hint", self.group.listeners(), self.nothing)

    def report(self):
        if self.is_over:
            return
        if self.held:
            self.database.call("report", 1, self.nothing)
            self.tell()
        self.clock.after(REPORT_S, self.report)

    def beat(self):
        if not self.is_over:
            self.database.call("beat", 1, self.nothing)
            self.clock.after(self.group.settings.heartbeat_s, self.beat)

    def nothing(self):
        pass

    def drain(self):
        """SIGTERM: gives every generation back with all its steps, and ends."""
        self.is_over = True
        done = {run.generation.id: run.done for run in self.engine.stop()}
        for generation in self.held.values():
            generation.saved = done.get(generation.id, len(self.group.settings.model.calls()))
            self.database.call("finish", 1, self.group.put_back, generation)

    def kill(self):
        """The node is lost: the leases of its generations expire, and the stored calls remain."""
        self.is_over = True
        settings = self.group.settings
        saved = {run.generation.id: run.saved for run in self.engine.stop()}
        for generation in self.held.values():
            generation.saved = saved.get(generation.id, generation.saved)
            expiry = settings.lease_s - self.random.random() * settings.heartbeat_s
            backoff = settings.backoff_s * (1.125 + 0.125 * self.random.random())
            self.clock.after(expiry + self.random.random() * settings.reap_s + backoff, self.group.put_back, generation)
