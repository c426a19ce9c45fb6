"""An engine: the batches of one device, by the policy of src/engine/policy.rs.

The run that was charged least has the turn; other runs that wait for the same network join its batch in the same order,
up to `max_rows` rows and one slice of time. A batch takes a + b · rows seconds of a core. Pauses of long batches, limits
of memory and the lanes of the decoder are left out.
"""

from dataclasses import dataclass, field

# The weight of the last batch in the mean seconds of a row, as in src/engine/pace.rs.
WEIGHT = 0.2


@dataclass(frozen=True)
class Model:
    """What a generation of one picture computes. `step` is (a, b): a batch of the denoiser takes a + b · rows seconds.
    `encode` and `decode` are the same for the text encoder and the decoder. `finish_s` are seconds of a core outside the
    engine for each generation: the file of the picture, its upload."""

    step: tuple
    encode: tuple
    decode: tuple
    steps: int
    rows: int = 2
    finish_s: float = 0.0

    def calls(self):
        """Network and rows of each call of a generation."""
        return [("encode", 1)] + [("step", self.rows)] * self.steps + [("decode", 1)]

    def seconds(self, network, rows):
        a, b = getattr(self, network)
        return a + b * rows

    def alone_s(self):
        """Seconds of a generation that is alone on a device."""
        return sum(self.seconds(network, rows) for network, rows in self.calls()) + self.finish_s

    def full_rate(self, max_rows, slice_s):
        """Generations a second of a device whose batches are as full as they can be."""
        def per_row(network):
            a, b = getattr(self, network)
            rows = max_rows
            while rows > 1 and (a + b * rows) > slice_s:
                rows -= 1
            return (a + b * rows) / rows
        return 1.0 / sum(per_row(network) * rows for network, rows in self.calls())


@dataclass
class Run:
    """A generation on an engine. `done` calls of its `calls` have ended, `saved` of them are stored."""

    generation: object
    calls: list
    arrival: int
    service: float
    done: int = 0
    left: int = 0
    saved: int = 0
    saved_at: float = 0.0
    in_batch: int = field(default=0)


class Engine:
    def __init__(self, clock, cores, model, ended, max_rows=16, slice_s=0.04, checkpoint_s=2.0):
        """`ended` is called with each generation whose calls have all ended."""
        self.clock, self.cores, self.model, self.ended = clock, cores, model, ended
        self.max_rows, self.slice_s, self.checkpoint_s = max_rows, slice_s, checkpoint_s
        self.runs, self.pace, self.arrivals = [], {}, 0
        self.is_computing, self.is_stopped = False, False
        self.batches, self.rows, self.busy = 0, 0, 0.0

    def enter(self, generation, done):
        """Begins a generation behind the `done` calls that are stored already."""
        least = min((run.service for run in self.runs), default=0.0)
        calls = self.model.calls()
        run = Run(generation, calls, self.arrivals, least, done=done, saved=done, saved_at=self.clock.now)
        run.left = calls[done][1] if done < len(calls) else 0
        self.arrivals += 1
        self.runs.append(run)
        if done >= len(calls):
            self.runs.remove(run)
            self.ended(generation)
        elif not self.is_computing:
            self.begin()

    def begin(self):
        if self.is_stopped or not self.runs:
            return
        order = sorted(self.runs, key=lambda run: (run.service, run.arrival))
        network = order[0].calls[order[0].done][0]
        per_row = self.pace.get(network)
        left = self.max_rows
        if per_row:
            left = max(1, min(left, int(self.slice_s / per_row)))
        picks, rows = [], 0
        for run in order:
            if run.calls[run.done][0] != network:
                continue
            taken = min(run.left, left)
            if taken == 0:
                break
            picks.append((run, taken))
            rows, left = rows + taken, left - taken
        self.is_computing = True
        self.cores.add(self.model.seconds(network, rows), self.end, network, picks, rows, self.clock.now)

    def end(self, network, picks, rows, begun):
        self.is_computing = False
        if self.is_stopped:
            return
        seconds = self.clock.now - begun
        last = self.pace.setdefault(network, seconds / rows)
        self.pace[network] += WEIGHT * (seconds / rows - last)
        self.busy += seconds
        if network == "step":
            self.batches, self.rows = self.batches + 1, self.rows + rows
        work = sum(getattr(self.model, network))
        for run, taken in picks:
            run.service += taken * work
            run.left -= taken
            if run.left == 0:
                self.advance(run)
        if not self.is_computing:
            self.begin()

    def advance(self, run):
        run.done += 1
        if run.done == len(run.calls):
            self.runs.remove(run)
            self.ended(run.generation)
            return
        run.left = run.calls[run.done][1]
        if self.clock.now - run.saved_at >= self.checkpoint_s:
            run.saved, run.saved_at = run.done, self.clock.now

    def stop(self):
        """Ends the engine at once, and returns its runs."""
        self.is_stopped = True
        runs, self.runs = self.runs, []
        return runs
