"""Checks the simulation against a real group on this machine: PostgreSQL, one api process and workers of one thread.

    python3 benches/scale/calibrate.py target/debug/latentd            # about five minutes; nothing else may run
    python3 benches/scale/calibrate.py target/debug/latentd --bench bench.json

Everything that the simulation is given is measured before the run that it has to predict:

- the batch curve of one worker alone: from `latentd bench --json` (--bench, with engine.threads = 1), otherwise from the
  metrics of one server;
- how many cores' worth of work the machine does when one, two, four and all workers compute (two hardware threads of one
  core are less than two cores, and many workers displace one another from the caches): the curve of one worker alone
  beside that of several at the same time;
- seconds of a core for each generation outside the engine (api, database, client; file of the picture), while the group
  has as many requests as it can take; and of the group per second while nothing is requested.

Then requests arrive in bursts, at the same times in the group and in the simulation. Standard library only.
"""

import argparse
import json
import random
import statistics
import tempfile

from arrivals import bursts
from engine import Model
from fair_queue import Tenant
from group import RealGroup, Servers, drive
from simulation import Group, Settings, quantile

# Seconds in which busiest pictures a second are counted.
BUSY_S = 15.0
# A change of a generation is sent within 50 ms, and its watchers look for it within 50 ms more.
NOTICE_S = 0.05


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--bench", help="the JSON of `latentd bench` with one thread")
    options.add_argument("--workers", type=int, default=8)
    options.add_argument("--slots", type=int, default=4, help="generations that a worker computes at a time")
    options.add_argument("--cores", type=int, default=2, help="of this machine")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--seconds", type=float, default=80.0, help="of the bursts")
    options.add_argument("--load", type=float, default=0.85, help="mean arrivals, by what the machine can do")
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--json", help="where to write the measurements")
    options = options.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        model, points, cores = curve(options, folder)
        with RealGroup(options.program, folder, options.workers, options.slots) as real:
            beside = outside(real, model, cores[-1][1], options)
            model = Model(model.step, model.encode, model.decode, options.steps, model.rows, beside["finish_s"])
            cores = [(tasks, count - (beside["idle"] if tasks > 1 else 0.0)) for tasks, count in cores]
            left = cores[-1][1]
            work = model.alone_s() + beside["accept_s"]
            rate = options.load * left / work
            times = bursts(random.Random(options.seed), rate, options.seconds, factor=2.5, share=0.25, length=10.0)
            print(f"{len(times)} requests in {options.seconds:.0f} s ({options.load:.0%} of {left / work:.2f} a second)")
            measured = drive(real.address, times, options.steps)
    simulated = simulate(options, model, cores, beside, times)
    shown = {"curve": points, "cores": cores, **beside, "model": vars(model), "times": times}
    report(measured, simulated)
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump({**shown, "measured": measured, "simulated": simulated}, file, indent=1)


def curve(options, folder):
    """The model of one worker alone, the points of its curve, and the cores that the machine is worth."""
    with Servers(options.program, folder, 1) as one:
        alone = [one.point(clients, options.steps) for clients in (1, 2, 4, 8)]
    step = line([(point["rows"], point["step_s"]) for point in alone])
    encode, decode = (line([(1.0, point[name]) for point in alone[:1]]) for name in ("encode_s", "decode_s"))
    if options.bench:
        with open(options.bench, encoding="utf-8") as file:
            measured = json.load(file)["models"][0]
        step = measured["cost"]["a_s"], measured["cost"]["b_s"]
        encode, decode = (0.0, measured["encode_s"]), (0.0, measured["decode_s"])
    model = Model(step, encode, decode, options.steps)
    print(f"a batch takes {step[0] * 1e3:.2f} ms + {step[1] * 1e3:.2f} ms for each row, alone on the machine")
    for point in alone:
        print(f"  {point['rows']:.1f} rows: {point['step_s'] * 1e3:.2f} ms")
    cores = [(1, 1.0)] + [(count, cores_of(options, folder, model, count)) for count in sorted({2, 4, options.workers})]
    return model, alone, cores


def cores_of(options, folder, model, count):
    """Cores that the machine is worth if `count` workers compute."""
    with Servers(options.program, folder, count, "together") as several:
        point = several.point(options.slots, options.steps, seconds=10.0)
    rate = count * point["generations_per_s"]
    cores = min(options.cores, count, rate * in_engine(model, point["rows"]))
    print(f"{count} at a time: {rate:.2f} generations a second, {point['rows']:.1f} rows: {cores:.2f} cores")
    return cores


def in_engine(model, rows):
    """Seconds of a core in the engine for a generation, in batches of so many rows."""
    step = model.steps * model.rows / rows * model.seconds("step", rows)
    return model.seconds("encode", 1) + step + model.seconds("decode", 1)


def line(points):
    """(a, b) of seconds = a + b * rows, by least squares of the relative errors, with a >= 0."""
    w, wr, wrr = (sum(r**power / s**2 for r, s in points) for power in (0, 1, 2))
    ws, wrs = (sum(r**power / s for r, s in points) for power in (0, 1))
    determinant = w * wrr - wr * wr
    if determinant > 1e-9 * w * wrr:
        a, b = (ws * wrr - wr * wrs) / determinant, (w * wrs - wr * ws) / determinant
        if a >= 0 and b >= 0:
            return a, b
    return 0.0, wrs / wrr


def outside(real, model, cores, options):
    """Seconds of a core outside the engines: while idle, and for each generation while all workers compute."""
    drive(real.address, [0.05 * number for number in range(4 * options.workers)], options.steps)
    idle = real.cpu_while(lambda: real.sleep(4.0))
    count = 4 * options.workers * options.slots
    before = real.batches()
    busy = real.cpu_while(lambda: drive(real.address, [0.0] * count, options.steps))
    rows = real.rows_since(before)
    # Seconds of two hardware threads of one core are less than seconds of a core.
    worth = cores / options.cores
    workers = (busy["workers"] - idle["workers"] / idle["seconds"] * busy["seconds"]) / count * worth
    others = (busy["others"] - idle["others"] / idle["seconds"] * busy["seconds"]) / count * worth
    found = {
        "idle": (idle["workers"] + idle["others"]) / idle["seconds"],
        "accept_s": max(0.0, others),
        "finish_s": max(0.0, workers - in_engine(model, rows)),
    }
    print(
        f"{count} requests at once, {rows:.1f} rows: a generation takes {in_engine(model, rows):.3f} s of a core in the "
        f"engine, {found['finish_s']:.3f} s in the rest of its worker and {found['accept_s']:.3f} s in the other "
        f"processes; the idle group takes {found['idle']:.2f} cores"
    )
    return found


def simulate(options, model, cores, beside, times):
    settings = Settings(
        model, workers=options.workers, apis=1, slots=options.slots, shared_cores=cores, accept_s=beside["accept_s"],
        reports=False,
    )
    group = Group(settings, [Tenant("default")], options.seed)
    group.arrive("default", times)
    group.run(times[-1], drain=600.0)
    assert all(g.ended_at is not None for g in group.generations), "the simulated group does not keep up"
    notice = random.Random(options.seed)
    return [
        {"at": g.arrived_at, "start_s": g.started_at - g.arrived_at,
         "end_s": g.ended_at - g.arrived_at + NOTICE_S * (notice.random() + notice.random())}
        for g in group.generations
    ]


def report(measured, simulated):
    rows = [
        ("pictures a second", lambda ends: len(ends) / (max(e["at"] + e["end_s"] for e in ends) - ends[0]["at"]), 3),
        (f"pictures a second in the busiest {BUSY_S:.0f} s", busiest, 3),
        ("seconds from request to picture, mean", lambda ends: statistics.mean(e["end_s"] for e in ends), 3),
        ("p50", lambda ends: quantile(sorted(e["end_s"] for e in ends), 0.5), 3),
        ("p95", lambda ends: quantile(sorted(e["end_s"] for e in ends), 0.95), 3),
        ("seconds in the queue, p95", lambda ends: quantile(sorted(e["start_s"] for e in ends), 0.95), 3),
    ]
    print("\n| | group | simulation | difference |\n|---|---|---|---|")
    for name, of, digits in rows:
        one, two = of(measured), of(simulated)
        print(f"| {name} | {one:.{digits}f} | {two:.{digits}f} | {(two / one - 1) if one else 0:+.1%} |")


def busiest(ends):
    """The most pictures that ended in any BUSY_S seconds, by second."""
    times = sorted(e["at"] + e["end_s"] for e in ends)
    most, first = 0, 0
    for last, time in enumerate(times):
        while time - times[first] > BUSY_S:
            first += 1
        most = max(most, last - first + 1)
    return most / BUSY_S


if __name__ == "__main__":
    main()
