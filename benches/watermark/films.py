"""Measures how the watermark survives the formats of films: in how many frames of a decoded film it is found.

    cargo build --release --example watermark
    python3 -m venv /tmp/v && /tmp/v/bin/pip install --no-deps -r requirements.txt
    /tmp/v/bin/python films.py

Needs ffmpeg, which decodes the films. A film shows a part of a photograph that moves by 0 to 3 pixels from frame to
frame.
"""

import argparse
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np

from marks import Latentd
from pictures import ROOT, photographs

FRAMES = 14


class Films(Latentd):
    """examples/watermark.rs, which also encodes films."""

    def film(self, frames, kind):
        """The file, and the seconds that the encoding took."""
        height, width = frames[0].shape[:2]
        self.process.stdin.write(f"film {width} {height} {len(frames)} {kind}\n".encode() + np.stack(frames).tobytes())
        self.process.stdin.flush()
        seconds, length = self.process.stdout.readline().split()
        return self.process.stdout.read(int(length)), float(seconds)


def clips(count, width, height, seed):
    """`count` films: the window on a photograph moves by 0 to 3 pixels from frame to frame."""
    rng = np.random.default_rng(seed)
    whole = [p for p in photographs() if p.shape[0] >= height + 3 * FRAMES and p.shape[1] >= width + 3 * FRAMES]
    for index in range(count):
        picture, speed = whole[index % len(whole)], rng.integers(0, 4, 2)
        top, left = (rng.integers(0, size - side - 3 * FRAMES + 1) for size, side in zip(picture.shape, (height, width)))
        yield [picture[top + speed[0] * i :, left + speed[1] * i :][:height, :width] for i in range(FRAMES)]


def decoded(file, kind, width, height):
    """The frames that ffmpeg decodes."""
    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as written:
        written.write(file)
        written.flush()
        command = ["ffmpeg", "-v", "error", "-i", written.name, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
        raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--example", default=ROOT / "target/release/examples/watermark", type=pathlib.Path)
    parser.add_argument("--films", type=int, default=20)
    arguments = parser.parse_args()
    mark, rng = Films(arguments.example), np.random.default_rng(1)
    for width, height in [(128, 128), (320, 192), (512, 320)]:
        for kind in ["mp4", "gif"]:
            found, whole, marking, encoding = 0, 0, [], []
            for frames in clips(arguments.films, width, height, 2):
                bits = int(rng.integers(0, 2**64, dtype=np.uint64))
                marked = [mark.embed(frame, bits) for frame in frames]
                marking += [seconds for _, seconds in marked]
                file, seconds = mark.film([frame for frame, _ in marked], kind)
                encoding.append(seconds / FRAMES)
                right = [mark.detect(frame)[0] == bits for frame in decoded(file, kind, width, height)]
                assert len(right) == FRAMES
                found, whole = found + sum(right), whole + any(right)
            print(f"{kind} {width} x {height}: found in {found} of {FRAMES * arguments.films} frames, in a frame of {whole} of"
                  f" {arguments.films} films; ms per frame: mark {1e3 * statistics.median(marking):.1f},"
                  f" encode {1e3 * statistics.median(encoding):.1f}", flush=True)


if __name__ == "__main__":
    main()
