"""Real processes for calibrate.py: single servers, and a group on PostgreSQL. They end with their `with` block."""

import contextlib
import glob
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
from datetime import datetime

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0


class Process:
    """A process of latentd that is ready. `program` is a command line."""

    def __init__(self, program, folder, settings):
        self.port, self.operator = free_port(), free_port()
        settings = {
            "DATA_DIR": str(folder),
            "HTTP__BIND": f"127.0.0.1:{self.port}",
            "OPERATOR__BIND": f"127.0.0.1:{self.operator}",
            "LOG__FILTER": "warn",
            "ENGINE__THREADS": "1",
            **settings,
        }
        environment = {**os.environ, **{f"LATENTD_{name}": value for name, value in settings.items()}}
        self.process = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid

    def wait(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if ask(self.operator, "GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.1)
        raise SystemExit("a process is not ready")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_s(self):
        return cpu_s(self.pid)


class Servers:
    """Servers that know nothing of each other, with one thread each."""

    def __init__(self, program, folder, count, name="single"):
        folders = [pathlib.Path(folder) / f"{name}-{count}-{number}" for number in range(count)]
        self.processes = [Process([program, "serve"], folder, {}) for folder in folders]

    def __enter__(self):
        for process in self.processes:
            process.wait()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.end()

    def point(self, clients, steps, seconds=4.0):
        """Means over all servers of what a batch takes, while `clients` requests are always open on each."""
        stop, threads = threading.Event(), []

        def work(port, number):
            while not stop.is_set():
                draw(port, steps, number)

        for process in self.processes:
            draw(process.port, steps, 0)
        before, begun = [metrics(process.operator) for process in self.processes], time.monotonic()
        for process in self.processes:
            for number in range(clients):
                threads.append(threading.Thread(target=work, args=(process.port, number)))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        after, measured_s = [metrics(process.operator) for process in self.processes], time.monotonic() - begun
        stop.set()
        for thread in threads:
            thread.join()

        def grown(name):
            return sum(b.get(name, 0.0) - a.get(name, 0.0) for a, b in zip(before, after))

        def seconds(network):
            return grown(f'latentd_batch_seconds_sum{{device="cpu",network="{network}"}}')

        rows, batches = grown("latentd_batch_rows_sum"), grown("latentd_batch_rows_count")
        generations = rows / (2 * steps)
        return {
            "clients": clients,
            "rows": rows / batches,
            "generations_per_s": generations / measured_s / len(self.processes),
            "step_s": seconds("denoiser") / batches,
            "encode_s": seconds("text_encoder") / generations,
            "decode_s": seconds("decoder") / generations,
        }


class RealGroup:
    """PostgreSQL, one api process and workers. `worker` is the command line of a worker."""

    def __init__(self, program, worker, folder, workers, settings):
        self.folder = pathlib.Path(folder) / "group"
        self.folder.mkdir()
        self.postgres = Postgres(self.folder / "postgres")
        settings = {"DATABASE__URL": self.postgres.url, **settings}
        self.api = Process([program, "serve"], self.folder / "data", {**settings, "ROLE": "api"})
        self.api.wait()
        roles = {**settings, "ROLE": "worker"}
        self.workers = [Process(worker, self.folder / "data", roles) for _ in range(workers)]
        self.address = self.api.port

    def __enter__(self):
        for worker in self.workers:
            worker.wait()
        return self

    def __exit__(self, *_):
        for process in [*self.workers, self.api]:
            process.end()
        self.postgres.end()

    def sleep(self, seconds):
        time.sleep(seconds)

    def batches(self):
        """Rows and batches of all workers since their start."""
        found = [metrics(worker.operator) for worker in self.workers]
        return [sum(one.get(f"latentd_batch_rows_{of}", 0.0) for one in found) for of in ("sum", "count")]

    def rows_since(self, before):
        """The mean number of rows of a batch since `before`, see `batches`."""
        rows, batches = (now - then for now, then in zip(self.batches(), before))
        return rows / batches

    def cpu_while(self, call):
        """Seconds of a core that the workers, and all others with this program, take during the call."""
        def used():
            others = self.api.cpu_s() + self.postgres.cpu_s() + time.process_time()
            return sum(worker.cpu_s() for worker in self.workers), others
        start, (workers, others) = time.monotonic(), used()
        call()
        now = used()
        return {"seconds": time.monotonic() - start, "workers": now[0] - workers, "others": now[1] - others}


class Postgres:
    """A PostgreSQL cluster on a Unix socket."""

    def __init__(self, folder):
        programs = max(glob.glob("/usr/lib/postgresql/*/bin"), default=None)
        programs = programs or os.path.dirname(os.path.realpath(shutil.which("initdb") or ""))
        folder.mkdir()
        self.folder, options = folder, {}
        if os.getuid() == 0:
            import pwd

            user = pwd.getpwnam("postgres")
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
            for parent in [folder.parent, folder.parent.parent]:
                parent.chmod(0o755)
        quiet = {"stdout": subprocess.DEVNULL, "cwd": folder, **options}
        make = [f"{programs}/initdb", "-D", folder / "data", "-U", "latentd", "--auth", "trust", "--no-sync"]
        subprocess.run(make, check=True, **quiet)
        command = [f"{programs}/postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
        command += ["-c", "max_connections=400", "-c", "jit=off"]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stderr=log, **quiet)
        self.url = f"postgres://latentd@localhost/postgres?host={folder}"
        end = time.monotonic() + PATIENCE_S
        while subprocess.run([f"{programs}/pg_isready", "-q", "-h", folder]).returncode and time.monotonic() < end:
            time.sleep(0.1)

    def cpu_s(self):
        """Of the server and its connections; a connection that has closed counts as a child of the server."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sum(cpu_s(int(pid)) for pid in children) + cpu_s(self.process.pid, True)

    def end(self):
        self.process.send_signal(2)
        self.process.wait(60)


def drive(port, times, steps):
    """Sends a request at each of the times, and waits for all pictures. Returns what each took, in the order of times."""
    ends, threads = [None] * len(times), []
    start = time.monotonic() + 0.1

    def send(number, at):
        sent = time.time()
        answer = draw(port, steps, number)
        begun = datetime.fromisoformat(answer["started_at"].replace("Z", "+00:00")).timestamp() - sent
        ends[number] = {"at": at, "start_s": begun, "end_s": time.monotonic() - start - at}

    for number, at in enumerate(times):
        time.sleep(max(0.0, start + at - time.monotonic()))
        threads.append(threading.Thread(target=send, args=(number, at)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return ends


def draw(port, steps, number):
    # A prompt of its own, because the engine keeps the embeddings of prompts.
    body = {"prompt": f"a red fox {number} {time.monotonic_ns()}", "seed": number, "steps": steps}
    status, answer = ask(port, "POST", "/v1/images", body, {"Prefer": "wait=300"})
    if answer.get("status") != "succeeded":
        raise SystemExit(f"not drawn: {status} {answer}")
    return answer


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": "application/json", **(headers or {})}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, json.loads(text) if is_json else text.decode()


def metrics(port):
    lines = ask(port, "GET", "/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def cpu_s(pid, with_children=False):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[at]) for at in ((11, 12, 13, 14) if with_children else (11, 12))) / TICKS


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
