"""Prints the tables of docs/scaling.md: `python3 benches/scale/table.py`, about two minutes, always the same numbers.

    python3 benches/scale/table.py --bench bench.json       # with the curve of `latentd bench --json` instead
    python3 benches/scale/table.py --database database.json # with other limits than those of the documents

The example worker is assumed, not measured: a step of a batch takes 20 ms + 12 ms for each row. The limits of the
database are those of `cargo bench --profile dev --bench ledger -- --json FILE`.
"""

import argparse
import json
import pathlib
import random
import sys

from arrivals import bursts
from engine import Model
from fair_queue import Tenant
from simulation import Group, Settings

EXAMPLE = Model(step=(0.020, 0.012), encode=(0.010, 0.0), decode=(0.0, 0.060), steps=30, finish_s=0.0)
# Tenants with their weights and their parts of the arrivals: one asks for more than its share.
TENANTS = (("small", 1.0, 0.1), ("medium", 1.0, 0.2), ("large", 2.0, 0.3), ("greedy", 1.0, 0.4))
LISTENERS = 68
SEED = 20


def main():
    here = pathlib.Path(__file__).parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bench")
    options.add_argument("--database", default=here / "database.json")
    options.add_argument("--load", type=float, default=0.7, help="mean arrivals, by what the workers can do at most")
    options.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000])
    options = options.parse_args()
    model = of_bench(options.bench) if options.bench else EXAMPLE
    with open(options.database, encoding="ascii") as file:
        limits = json.load(file)
    sizes(options, model, limits)
    events(options, model, limits)
    cells(options, model, limits)


def of_bench(path):
    """The model of the first entry of `latentd bench --json`."""
    with open(path, encoding="utf-8") as file:
        found = json.load(file)["models"][0]
    cost = found["cost"]["a_s"], found["cost"]["b_s"]
    rows = round(found["curve"][0]["rows"])
    return Model(cost, (found["encode_s"], 0.0), (0.0, found["decode_s"]), found["steps"], rows)


def costs(limits, column):
    """Seconds of the database's capacity for each operation, and the seconds that it takes alone."""
    rows = {row["operation"]: row for row in limits[column]}
    pooled = {row["operation"]: row for row in limits["PgBouncer, max_running"]}
    cost = {name: 1 / row["per_second"] for name, row in rows.items()}
    one, four = cost["claim 1"], 4 * cost["claim 4"]
    each = max(0.0, four - one) / 3
    hint = 1 / pooled["hint"]["per_second"]
    listener = max(0.0, 1 / limits["direct, max_running"][at(limits, "hint")]["per_second"] - hint) / LISTENERS
    found = {
        "accept": cost["accept"], "claim": (max(0.0, one - each), each), "finish": cost["finish"],
        "look": cost["look in vain"], "count": cost["look in vain"] / 2, "report": cost["report"],
        "beat": cost["renew and heartbeat"], "hint": (hint, listener),
    }
    alone = {name: rows[row]["alone_ms"] / 1e3 for name, row in
             (("accept", "accept"), ("claim", "claim 1"), ("finish", "finish"), ("look", "look in vain"))}
    return found, alone


def at(limits, operation):
    return [row["operation"] for row in limits["direct, max_running"]].index(operation)


def group(model, limits, workers, load, listens, seconds, full=None):
    column = "direct, max_running" if listens else "PgBouncer, max_running"
    cost, alone = costs(limits, column)
    settings = Settings(
        model, workers=workers, slots=8, slice_s=0.5, costs=cost, alone=alone, listens=listens, max_queued=20 * workers + 200
    )
    made = Group(settings, [Tenant(name, weight, 10**6) for name, weight, _ in TENANTS], SEED)
    rate = load * workers * model.full_rate(settings.max_rows, settings.slice_s)
    source = random.Random(SEED)
    for name, _, part in TENANTS:
        made.arrive(name, bursts(source, rate * part, seconds, factor=2.5, share=0.2, length=15.0))
    return made


def sizes(options, model, limits):
    print(f"\nOne worker: {model.alone_s():.2f} s for a picture alone, at most "
          f"{model.full_rate(16, 0.5):.2f} pictures a second with full batches.\n")
    print("| workers | connections | pictures/s | utilization | rows | wait p50 | p95 | small p95 | greedy p95 | claims/s | "
          "looks/s | hints/s | database |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for listens in (True, False):
        for workers in options.workers:
            if listens and workers > 250 or not listens and workers < 64:
                continue
            seconds = 600.0 if workers <= 64 else 240.0 if workers <= 250 else 120.0
            made = group(model, limits, workers, options.load, listens, seconds)
            made.run(seconds)
            show(workers, listens, made.result(since=seconds / 6))


def show(workers, listens, found):
    per_s = found["per_s"]
    print(
        f"| {workers} | {'direct' if listens else 'PgBouncer'} | {found['pictures_per_s']:.1f} | "
        f"{found['utilization']:.0%} | {found['rows']:.1f} | {wait(found['starts'][0])} | {wait(found['starts'][1])} | "
        f"{wait(found['starts_of']['small'][1])} | {wait(found['starts_of']['greedy'][1])} | "
        f"{per_s.get('claim', 0):.0f} | {per_s.get('look', 0):.0f} | {per_s.get('hint', 0):.0f} | {found['database']:.0%} |"
    )
    sys.stdout.flush()


def wait(seconds):
    return "–" if seconds is None else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def events(options, model, limits):
    """What a rolling deploy and the loss of nodes do to 16 workers at the same load."""
    print("\n| 16 workers | pictures/s | wait p50 | p95 | request to picture p95 | begun again |\n|---|---|---|---|---|---|")
    for name, act in (
        ("nothing happens", lambda made: None),
        ("rolling deploy, one at a time", lambda made: made.deploy(120.0, 1)),
        ("rolling deploy, four at a time", lambda made: made.deploy(120.0, 4)),
        ("one node is lost", lambda made: made.lose(120.0, 1)),
        ("four nodes are lost", lambda made: made.lose(120.0, 4)),
    ):
        made = group(model, limits, 16, options.load, True, 600.0)
        act(made)
        made.run(600.0, drain=600.0)
        accepted = [g for g in made.generations if g.accepted_at is not None]
        assert all(g.ended_at is not None for g in accepted), "a generation is lost"
        found = made.result(since=100.0)
        again = sum(g.attempts > 1 for g in accepted)
        print(f"| {name} | {found['pictures_per_s']:.1f} | {wait(found['starts'][0])} | {wait(found['starts'][1])} | "
              f"{wait(found['ends'][1])} | {again} |")


def cells(options, model, limits):
    """1,000 workers in cells of equal size, each with a database and a quarter of the time of the tenants' arrivals."""
    print("\n| cells | workers each | pictures/s of all | wait p50 | p95 | database of each |\n|---|---|---|---|---|---|")
    for count in (1, 2, 4, 8, 16):
        workers = 1000 // count
        seconds = 120.0
        made = group(model, limits, workers, options.load, False, seconds)
        made.run(seconds)
        found = made.result(since=seconds / 6)
        print(f"| {count} | {workers} | {count * found['pictures_per_s']:.0f} | {wait(found['starts'][0])} | "
              f"{wait(found['starts'][1])} | {found['database']:.0%} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
