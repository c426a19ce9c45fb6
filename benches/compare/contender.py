"""A contender in its own process: starts it, sends it JSON lines, measures its memory and CPU time, and ends it."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A contender could not answer a request."""


class Contender:
    def __init__(self, name, command, threads, log):
        self.name = name
        environment = {
            **os.environ,
            "COMPARE_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }
        self.log = open(log, "w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def ask(self, do, **request):
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            raise Failed(f"{self.name} ended; see {self.log.name}")
        answer = json.loads(answer)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error'][:2000]}")
        return answer

    def run(self, calls=1, output=None):
        """Runs the network and returns the seconds of each call."""
        return self.ask("run", calls=calls, output=output and str(output))["seconds"]

    def peak_bytes(self):
        """The peak of resident memory since forget_peak, including mapped files."""
        for line in self._proc("status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def forget_peak(self):
        self._proc("clear_refs").write_text("5")

    def cpu_seconds(self):
        """CPU seconds of all threads of the process so far."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _proc(self, file):
        return Path(f"/proc/{self.process.pid}/{file}")


def machine_cpu_seconds():
    """CPU seconds of all processes of the machine so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = map(int, fields)
    return (user + nice + system + irq + softirq) / TICKS
