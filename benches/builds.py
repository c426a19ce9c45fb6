#!/usr/bin/env python3
"""Compares two builds of latentd: pictures per second, peak memory, and the waiting time behind large requests.

Starts a server of each build on free ports and measures them in alternation on the embedded model. Nothing else may run
meanwhile. Standard library only. Peak memory is read from /proc, so it is printed only on Linux.

    python3 benches/builds.py OLD/latentd NEW/latentd
    python3 benches/builds.py OLD/latentd NEW/latentd --rounds 8 --pictures 80 --large 0

Prints Markdown: pictures per second of each round with the ratio new / old, their median and mean; peak memory and its
ratio; and the time of a request of two steps, alone and behind three requests of 8 pictures of 2048 × 2048 pixels.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("old")
    options.add_argument("new")
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--pictures", type=int, default=60, help="of each round and build")
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--large", type=int, default=15, help="small requests behind large ones; 0 leaves this part out")
    options = options.parse_args()

    with Server(options.old) as old, Server(options.new) as new:
        servers = {"old": old, "new": new}
        for server in servers.values():
            pictures_a_second(server, 2 * options.clients, options.clients)
        print("| round | old, pictures/s | new, pictures/s | new / old |\n|---|---|---|---|")
        ratios = []
        for number in range(options.rounds):
            names = list(servers) if number % 2 == 0 else list(servers)[::-1]
            rate = {name: pictures_a_second(servers[name], options.pictures, options.clients) for name in names}
            ratios.append(rate["new"] / rate["old"])
            print(f"| {number + 1} | {rate['old']:.2f} | {rate['new']:.2f} | {ratios[-1]:.3f} |", flush=True)
        print(f"\nnew / old: median {statistics.median(ratios):.3f}, mean {statistics.mean(ratios):.3f}")
        peaks = {name: server.peak() for name, server in servers.items()}
        if all(peaks.values()):
            print(f"Peak memory: old {peaks['old']} MiB, new {peaks['new']} MiB, new / old {peaks['new'] / peaks['old']:.3f}")

    for name, program in [("old", options.old), ("new", options.new)] if options.large else []:
        with Server(program) as server:
            alone, behind, cancels = behind_large(server, options.large)
            print(
                f"\n{name}: two steps take {alone:.3f} s alone; behind large requests {statistics.median(behind) / alone:.1f} "
                f"times that (median), {max(behind) / alone:.1f} (most); a cancel takes at most {max(cancels):.2f} s"
            )


def pictures_a_second(server, pictures, clients, more=()):
    def draw(number):
        request = {"prompt": f"a red fox {number % 7}", "seed": number, **dict(more)}
        answer = server.ask("POST", "/v1/images", request, wait=True)
        if answer.get("status") != "succeeded":
            raise SystemExit(f"not drawn: {answer}")

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(draw, range(pictures)))
    return pictures / (time.monotonic() - start)


def behind_large(server, times):
    """(median seconds of a small request alone, seconds of each behind large requests, seconds of each cancel)."""

    def small():
        start = time.monotonic()
        answer = server.ask("POST", "/v1/images", {"prompt": "a red fox", "steps": 2}, wait=True)
        if answer.get("status") != "succeeded":
            raise SystemExit(f"not drawn: {answer}")
        return time.monotonic() - start

    alone = statistics.median(small() for _ in range(8))
    large = {"prompt": "a red fox", "size": "2048x2048", "n": 8, "steps": 1000}
    ids = [server.ask("POST", "/v1/images", large)["id"] for _ in range(3)]
    time.sleep(3)
    behind = [small() for _ in range(times)]
    cancels = []
    for generation in ids:
        start = time.monotonic()
        server.ask("POST", f"/v1/images/{generation}/cancel")
        while server.ask("GET", f"/v1/images/{generation}")["status"] == "running" and time.monotonic() - start < 60:
            time.sleep(0.02)
        cancels.append(time.monotonic() - start)
    return alone, behind, cancels


class Server:
    def __init__(self, program, settings=(), before=()):
        """`settings` are further environment variables, `before` is what stands before the program on the command line."""
        self.folder = tempfile.mkdtemp()
        self.port, self.operator = free_port(), free_port()
        settings = {
            "LATENTD_DATA_DIR": self.folder,
            "LATENTD_HTTP__BIND": f"127.0.0.1:{self.port}",
            "LATENTD_OPERATOR__BIND": f"127.0.0.1:{self.operator}",
            **dict(settings),
        }
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*before, program, "serve"], env={**os.environ, **settings}, **output)

    def __enter__(self):
        for _ in range(300):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.operator, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("the server is not ready after 30 s")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method, path, body=None, wait=False):
        headers = {"Content-Type": "application/json", **({"Prefer": "wait=300"} if wait else {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def peak(self):
        """Peak resident memory in MiB."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) // 1024
        except OSError:
            return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
