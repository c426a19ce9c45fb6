"""Measures `latentd serve` and a plain FastAPI + diffusers server with the same requests and model. See README.md."""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

import build
from contender import TICKS
from models import ROOT, WORK

HERE = Path(__file__).resolve().parent
MODEL = ROOT / "models" / "emoji"
STEPS, LONG, SHORT = 20, 50, 4
PATIENCE_S = 600


def main():
    options = arguments()
    folder = WORK / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(latentd(options)), stack.enter_context(plain(options))]
        result = asyncio.run(compare(servers, options))
    text = "\n".join(lines(result, options)) + "\n"
    (WORK / "server.md").write_text(text)
    (WORK / "server.json").write_text(json.dumps(result, indent=1))
    print(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3, help="of all phases, the servers in alternation")
    parser.add_argument("--seconds", type=float, default=20, help="of a closed loop, and of random arrivals")
    parser.add_argument("--clients", type=int, default=8, help="of the closed loop")
    parser.add_argument("--load", type=float, default=0.8, help="of random arrivals, by what the plain server can do")
    parser.add_argument("--profile", default="dev", help="cargo's profile for latentd")
    return parser.parse_args()


class Server:
    """A server process and its address."""

    def __init__(self, name, process, address):
        self.name, self.process, self.address = name, process, address

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_bytes(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0


@contextlib.contextmanager
def latentd(options):
    program = build.latentd(options.profile)[1]
    environment = {
        **os.environ,
        "LATENTD_OPERATOR__BIND": "127.0.0.1:0",
        "LATENTD_ENGINE__THREADS": str(options.threads),
        "LATENTD_LOG__FILTER": "warn",
    }
    with tempfile.TemporaryDirectory() as data, open(WORK / "logs" / "latentd-serve.log", "w") as log:
        command = [program, "serve", "--bind", "127.0.0.1:0", "--data-dir", data]
        with ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)) as process:
            address = process.stdout.readline().split()[-1]
            yield ready(Server("latentd", process, address))


@contextlib.contextmanager
def plain(options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, HERE / "plain_server.py", MODEL, str(port), str(options.threads)]
    with (
        open(WORK / "logs" / "plain-server.log", "w") as log,
        ended(subprocess.Popen(command, stdout=log, stderr=log, env=environment)) as process,
    ):
        yield ready(Server("FastAPI + diffusers", process, f"http://127.0.0.1:{port}"))


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ready(server):
    end = time.monotonic() + 300
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.address}/health").status_code == 200:
                return server
        time.sleep(0.2)
    sys.exit(f"{server.name} does not come up; see {WORK / 'logs'}")


class Client:
    """A client of a server. Prompts and seeds of all clients never repeat."""

    asked = 0

    def __init__(self, server):
        self.server = server
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(base_url=server.address, timeout=PATIENCE_S, limits=limits, trust_env=False)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()

    def body(self, steps, **more):
        Client.asked += 1
        return {"prompt": f"a red fox, number {Client.asked}", "steps": steps, "seed": Client.asked, **more}

    async def image(self, steps):
        """Requests a picture and returns the seconds until it arrives."""
        start = time.perf_counter()
        answer = await self.http.post("/v1/images.png", json=self.body(steps))
        answer.raise_for_status()
        assert answer.content.startswith(b"\x89PNG")
        return time.perf_counter() - start

    async def first_preview(self, steps):
        """Requests an event stream and returns the seconds until the first preview arrives."""
        start, first = time.perf_counter(), None
        headers = {"Accept": "text/event-stream"}
        async with self.http.stream("POST", "/v1/images", json=self.body(steps, previews=5), headers=headers) as answer:
            async for line in answer.aiter_lines():
                if first is None and line.startswith("event:") and "preview" in line:
                    first = time.perf_counter() - start
        return first

    async def health(self, seconds, times):
        """Requests GET /health about twenty times per second and appends the seconds of each request to `times`."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            (await self.http.get("/health")).raise_for_status()
            times.append(time.perf_counter() - start)
            await asyncio.sleep(0.05)

    async def idle(self):
        """Waits until the server does not compute."""
        while True:
            before = self.server.cpu_seconds()
            await asyncio.sleep(0.3)
            if self.server.cpu_seconds() - before <= 0.01:
                return


async def compare(servers, options):
    """Runs every phase in rounds, for one server after the other."""
    result = {server.name: {"images": 0, "seconds": 0.0} for server in servers}
    clients = {server.name: Client(server) for server in servers}
    for client in clients.values():  # Warm-up.
        for _ in range(3):
            await client.image(STEPS)
    for number in range(options.rounds):
        for phase in (closed_loop, alone, behind_long_ones, hang_ups, arrivals):
            for name, client in clients.items():
                await client.idle()
                print(f"round {number + 1}: {phase.__name__.replace('_', ' ')}, {name}", file=sys.stderr, flush=True)
                # The throughput of the plain server determines the load of both.
                pace = result[servers[1].name]
                await phase(client, result[name], options, random.Random(number), pace)
    for server in servers:
        result[server.name]["peak_bytes"] = server.peak_bytes()
        await clients[server.name].http.aclose()
    return result


async def closed_loop(client, into, options, _random, _pace):
    """Clients that send the next request as soon as they have their picture."""
    end = time.perf_counter() + options.seconds
    latencies, health = into.setdefault("closed_s", []), into.setdefault("health_s", [])

    async def one():
        while time.perf_counter() < end:
            latencies.append(await client.image(STEPS))
            into["images"] += 1

    start = time.perf_counter()
    probe = asyncio.create_task(client.health(options.seconds, health))
    await asyncio.gather(*(one() for _ in range(options.clients)))
    into["seconds"] += time.perf_counter() - start
    await probe
    if client.server.name == "latentd":
        # One client that wants previews, while the others request pictures.
        others = [asyncio.create_task(client.image(STEPS)) for _ in range(options.clients - 1)]
        into.setdefault("preview_beside_s", []).append(await client.first_preview(STEPS))
        await asyncio.gather(*others)


async def alone(client, into, _options, _random, _pace):
    for steps in (SHORT, STEPS, LONG):
        for _ in range(3):
            into.setdefault(f"alone_{steps}_s", []).append(await client.image(steps))
    if client.server.name == "latentd":
        for _ in range(5):
            into.setdefault("preview_alone_s", []).append(await client.first_preview(STEPS))


async def behind_long_ones(client, into, _options, _random, _pace):
    """A request of 4 steps that arrives while four requests of 50 steps are running."""
    for _ in range(3):
        long = [asyncio.create_task(client.image(LONG)) for _ in range(4)]
        await asyncio.sleep(0.1)
        into.setdefault("behind_s", []).append(await client.image(SHORT))
        await asyncio.gather(*long)


async def hang_ups(client, into, _options, _random, _pace):
    """CPU seconds spent after a client has left, divided by the CPU seconds of a whole request of 50 steps."""
    for _ in range(3):
        await client.idle()
        before = client.server.cpu_seconds()
        took = await client.image(LONG)
        await client.idle()
        whole = client.server.cpu_seconds() - before
        asked = asyncio.create_task(client.image(LONG))
        await asyncio.sleep(0.2 * took)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        left = client.server.cpu_seconds()
        await client.idle()
        into.setdefault("waste", []).append((client.server.cpu_seconds() - left) / whole)


async def arrivals(client, into, options, dice, pace):
    """Requests of 4 to 50 steps at random times, which are the same for both servers."""
    rate = options.load * pace["images"] / pace["seconds"] * STEPS / ((SHORT + LONG) / 2)
    asked, at = [], 0.0
    start = time.perf_counter()

    async def one(steps, wait):
        await asyncio.sleep(max(0.0, start + wait - time.perf_counter()))
        return steps, await client.image(steps)

    while (at := at + dice.expovariate(rate)) < options.seconds:
        asked.append(one(dice.randint(SHORT, LONG), at))
    into.setdefault("arrivals", []).extend(await asyncio.gather(*asked))
    into["arrival_rate"] = rate


def lines(result, options):
    names = list(result)
    yield (f"The model {MODEL.name} at its own size, {options.threads} threads each; {options.rounds} rounds, the servers "
           "in alternation; latencies in milliseconds.")
    yield ""
    yield f"| | {' | '.join(names)} | ratio |"
    yield "|---|---|---|---|"

    def row(what, values, form, ratio=None):
        shown = ["–" if value is None or value != value else form.format(value) for value in values]
        return f"| {what} | {' | '.join(shown)} | {'' if ratio is None or ratio != ratio else f'{ratio:.2f}'} |"

    def both(get):
        return [get(result[name]) for name in names]

    def ms(values, share):
        return 1000 * quantile(values, share)

    images = both(lambda r: r["images"] / r["seconds"])
    yield row(f"images/s, {options.clients} clients in a closed loop, {STEPS} steps", images, "{:.2f}", images[0] / images[1])
    for what, get in (
        ("latency there, p50", lambda r: ms(r["closed_s"], 0.5)),
        ("latency there, p99", lambda r: ms(r["closed_s"], 0.99)),
        ("GET /health meanwhile, p50", lambda r: ms(r["health_s"], 0.5)),
        ("GET /health meanwhile, p99", lambda r: ms(r["health_s"], 0.99)),
        (f"{STEPS} steps alone, p50", lambda r: ms(r[f"alone_{STEPS}_s"], 0.5)),
        (f"{SHORT} steps alone, p50", lambda r: ms(r[f"alone_{SHORT}_s"], 0.5)),
        (f"{SHORT} steps behind four requests of {LONG}, p50", lambda r: ms(r["behind_s"], 0.5)),
        ("what of that is waiting", lambda r: ms(r["behind_s"], 0.5) - ms(r[f"alone_{SHORT}_s"], 0.5)),
        (f"random arrivals, {result[names[0]]['arrival_rate']:.2f}/s of {SHORT}–{LONG} steps, p50",
         lambda r: ms([seconds for _, seconds in r["arrivals"]], 0.5)),
        ("the same, p99", lambda r: ms([seconds for _, seconds in r["arrivals"]], 0.99)),
        ("of these the ones of up to 10 steps, p50", lambda r: ms([s for n, s in r["arrivals"] if n <= 10], 0.5)),
    ):
        values = both(get)
        yield row(what, values, "{:.0f}" if max(values) > 20 else "{:.1f}", values[1] / values[0] if values[0] > 0 else None)
    for what, key in (("first preview alone, p50", "preview_alone_s"),
                      (f"first preview beside {options.clients - 1} others, p50", "preview_beside_s")):
        yield row(what, both(lambda r, key=key: ms(r[key], 0.5) if key in r else None), "{:.0f}")
    yield row(f"computed for clients that left after a fifth of {LONG} steps, by the whole",
              both(lambda r: statistics.median(r["waste"])), "{:.0%}")
    yield row("peak RSS, GB", both(lambda r: r["peak_bytes"] / 1e9), "{:.2f}")
    yield ""
    yield "Ratios of rates are ours by theirs, of times theirs by ours: above 1 latentd is better."


def quantile(values, share):
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


if __name__ == "__main__":
    main()
