"""The watermark of latentd and dwtDct of invisible-watermark, with the same interface."""

import subprocess
import sys
import time
import types

import numpy as np


class Latentd:
    """examples/watermark.rs as a process."""

    name = "latentd"

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, command, picture):
        height, width = picture.shape[:2]
        line = f"{command[0]} {width} {height} {' '.join(map(str, command[1:]))}".strip()
        self.process.stdin.write(line.encode() + b"\n" + np.ascontiguousarray(picture).tobytes())
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def embed(self, picture, bits):
        """The marked picture and the seconds that the mark took."""
        (seconds,) = self.ask(["embed", bits], picture)
        pixels = self.process.stdout.read(picture.size)
        return np.frombuffer(pixels, np.uint8).reshape(picture.shape), float(seconds)

    def detect(self, picture):
        """The bits, or None, and the seconds."""
        seconds, *found = self.ask(["detect"], picture)
        return (int(found[0]) if found else None), float(seconds)


class DwtDct:
    """Method dwtDct of invisible-watermark. It always reads 64 bits and does not say whether there is a watermark."""

    name = "dwtDct"

    def __init__(self):
        # The package imports PyTorch, which only another method uses.
        sys.modules.setdefault("torch", types.ModuleType("torch"))
        from imwatermark import WatermarkDecoder, WatermarkEncoder

        self.encoder, self.decoder = WatermarkEncoder(), WatermarkDecoder("bytes", 64)

    def embed(self, picture, bits):
        self.encoder.set_watermark("bytes", bits.to_bytes(8, "big"))
        begin = time.perf_counter()
        marked = self.encoder.encode(np.ascontiguousarray(picture[..., ::-1]), "dwtDct")
        return np.ascontiguousarray(marked[..., ::-1]), time.perf_counter() - begin

    def detect(self, picture):
        begin = time.perf_counter()
        try:
            found = int.from_bytes(self.decoder.decode(np.ascontiguousarray(picture[..., ::-1]), "dwtDct"), "big")
        except RuntimeError:  # smaller than 256 × 256 pixels
            found = None
        return found, time.perf_counter() - begin
