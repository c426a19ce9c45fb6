"""Checks the simulation against a real group on this machine: PostgreSQL, one api process and workers of one thread.

    cargo build --example paced
    python3 benches/scale/calibrate.py target/debug/latentd --paced target/debug/examples/paced
    python3 benches/scale/calibrate.py target/debug/latentd            # at least five minutes; nothing else may run
    python3 benches/scale/calibrate.py target/debug/latentd --bench bench.json

With --paced, each worker has a device of its own, which takes a known time for each batch (examples/paced.rs), as
workers with GPUs do. Nothing is measured before the run, because everything else that a generation takes is short
compared with its batches. Without --paced, all workers compute on the processor, and share it. The simulation is then
given measurements, none of which comes from the run that it has to predict:

- the batch curve of one worker alone: from `latentd bench --json` (--bench, with engine.threads = 1), otherwise from the
  metrics of one server;
- how many cores' worth of work the machine does when one, two, four and all workers compute (two hardware threads of one
  core are less than two cores, and many workers displace one another from the caches): the curve of one worker alone
  beside that of several at the same time, and for all workers beside the group while it has as many requests as it can
  take;
- seconds of a core for each generation outside the engine (api, database, client; file of the picture) at the same load,
  and of the group per second while nothing is requested.

Then requests arrive in bursts, at the same times in the group and in the simulation. The speed of a virtual machine
changes with what its neighbors do, so the group's full rate is measured again afterwards, the simulation is given the
mean, and if the two differ by more than STEADY, everything is measured again. Standard library only.
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
# By how much the full rates before and after the run may differ, and how often everything is measured.
STEADY, TRIES = 0.08, 5
# The longest batches of workers with paced devices.
PACED_SLICE_S = 1.0
# A change of a generation is sent within 50 ms, and its watchers look for it within 50 ms more.
NOTICE_S = 0.05


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--bench", help="the JSON of `latentd bench` with one thread")
    options.add_argument("--paced", help="the program of examples/paced.rs")
    options.add_argument("--batch", type=float, default=0.2, help="seconds of a batch of a paced device, and")
    options.add_argument("--row", type=float, default=0.1, help="of each of its rows")
    options.add_argument("--workers", type=int, default=8)
    options.add_argument("--slots", type=int, help="generations that a worker computes at a time; 4, paced 8")
    options.add_argument("--cores", type=int, default=2, help="of this machine")
    options.add_argument("--steps", type=int, help="20, paced 10")
    options.add_argument("--seconds", type=float, help="in which requests arrive; 100, paced 200")
    options.add_argument("--load", type=float, default=0.7, help="mean arrivals, by what the machine can do")
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--json", help="where to write the measurements")
    options = options.parse_args()
    options.slots = options.slots or (8 if options.paced else 4)
    options.steps = options.steps or (10 if options.paced else 20)
    options.seconds = options.seconds or (200.0 if options.paced else 100.0)
    options.slice_s = PACED_SLICE_S if options.paced else 0.04
    if options.paced:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_paced(options, folder)
        return finish(options, found)
    for number in range(TRIES):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options, folder)
        if found["drift"] <= STEADY:
            break
        print(f"the machine's speed changed by {found['drift']:.0%} meanwhile", flush=True)
    else:
        raise SystemExit(f"in {TRIES} tries, the machine's speed was never steady")
    finish(options, found)


def finish(options, found):
    """Simulates the same arrivals, and compares."""
    simulated = simulate(options, found)
    report(found["measured"], simulated)
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump({**found, "model": vars(found["model"]), "simulated": simulated}, file, indent=1)


def measure_paced(options, folder):
    """The model of paced devices, and a run of the group. Nothing is measured before: the devices take what they are told,
    and all else is short beside it."""
    settings = {"ENGINE__MAX_RUNS": str(options.slots), "ENGINE__SLICE_MS": str(int(1e3 * options.slice_s))}
    worker = [options.paced, str(options.batch), str(options.row)]
    model = Model((options.batch, options.row), (0.0, options.row), (0.0, options.row), options.steps)
    times = arrivals(options, options.workers * model.full_rate(2 * options.slots, options.slice_s))
    with RealGroup(options.program, worker, folder, options.workers, settings) as real:
        before = real.batches()
        measured = drive(real.address, times, options.steps)
        print(f"{real.rows_since(before):.1f} rows")
    return {"model": model, "cores": None, "group": {"accept_s": 0.0}, "times": times, "measured": measured}


def measure(options, folder):
    """The model, the cores, and a run of the group."""
    model, points, cores = curve(options, folder)
    settings = {"ENGINE__MAX_RUNS": str(options.slots)}
    with RealGroup(options.program, [options.program, "serve"], folder, options.workers, settings) as real:
        idle = rest(real, options)
        before = saturate(real, model, cores[-1][1], idle, options)
        times = arrivals(options, before["rate"])
        measured = drive(real.address, times, options.steps)
        after = saturate(real, model, cores[-1][1], idle, options)
    group = {name: (before[name] + after[name]) / 2 for name in before}
    drift = abs(after["rate"] / before["rate"] - 1)
    model = Model(model.step, model.encode, model.decode, options.steps, model.rows, group["finish_s"])
    cores = [(tasks, count - (idle["cores"] if tasks > 1 else 0.0)) for tasks, count in cores[:-1]]
    cores.append((options.workers, group["cores"]))
    return {"model": model, "curve": points, "cores": cores, "group": group, "drift": drift, "times": times, "measured": measured}


def arrivals(options, rate):
    """Times in bursts. The time is stretched so that the mean is what is asked, however many bursts there are."""
    rate *= options.load
    times = bursts(random.Random(options.seed), rate, options.seconds, factor=2.5, share=0.25, length=10.0)
    stretch = len(times) / rate / options.seconds
    print(f"{len(times)} requests in {stretch * options.seconds:.0f} s ({options.load:.0%} of {rate / options.load:.2f} a second)")
    return [stretch * time for time in times]


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


def rest(real, options):
    """Seconds of a core that the workers and the others take per second while nothing is requested."""
    drive(real.address, [0.05 * number for number in range(4 * options.workers)], options.steps)
    idle = real.cpu_while(lambda: real.sleep(4.0))
    workers, others = idle["workers"] / idle["seconds"], idle["others"] / idle["seconds"]
    return {"workers": workers, "others": others, "cores": workers + others}


def saturate(real, model, cores, idle, options):
    """What a generation takes while all workers compute: seconds of a core outside the engines, generations a second of
    the group, and the cores that they are worth."""
    count, ends = 4 * options.workers * options.slots, []
    before = real.batches()
    busy = real.cpu_while(lambda: ends.extend(drive(real.address, [0.0] * count, options.steps)))
    rows, rate = real.rows_since(before), full_rate(ends)
    # Seconds of two hardware threads of one core are less than seconds of a core.
    worth = cores / options.cores
    workers, others = ((busy[who] - idle[who] * busy["seconds"]) / count * worth for who in ("workers", "others"))
    engine = in_engine(model, rows)
    found = {"rows": rows, "rate": rate, "accept_s": max(0.0, others), "finish_s": max(0.0, workers - engine)}
    found["cores"] = rate * (engine + found["finish_s"] + found["accept_s"])
    print(
        f"{count} requests at once, {rows:.1f} rows: {rate:.2f} generations a second; each takes {engine:.3f} s of a core "
        f"in the engine, {found['finish_s']:.3f} s in the rest of its worker and {found['accept_s']:.3f} s in the other "
        f"processes: {found['cores']:.2f} cores; the idle group takes {idle['cores']:.2f} cores",
        flush=True,
    )
    return found


def full_rate(ends):
    """Generations a second of requests that were sent at the same time, a whole number of times as many as the workers
    compute at a time. Those that a worker computes together end together."""
    return len(ends) / max(end["end_s"] for end in ends)


def simulate(options, found):
    settings = Settings(
        found["model"], workers=options.workers, apis=1, slots=options.slots, shared_cores=found["cores"],
        accept_s=found["group"]["accept_s"], reports=False, slice_s=options.slice_s,
    )
    times = found["times"]
    group = Group(settings, [Tenant("default")], options.seed)
    group.arrive("default", times)
    group.run(times[-1], drain=600.0)
    late = sum(g.ended_at is None for g in group.generations)
    assert late == 0, f"the simulated group does not keep up: {late} of {len(times)} generations"
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
