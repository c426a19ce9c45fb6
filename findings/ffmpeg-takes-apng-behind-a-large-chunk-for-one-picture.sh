#!/bin/sh
# What one expects: FFmpeg reads an APNG as an animation wherever its chunk acTL stands, as long as it stands before the
# first IDAT, which is all that the PNG specification asks for (third edition, section 5.6). Browsers do.
# What happens with FFmpeg 9.0.2, and as well with Debian's 5.1.9: the file is an animation only if acTL lies within the
# first 2 kB. With a longer chunk before it, such as content credentials of C2PA (caBX) or an ICC profile, FFmpeg reads
# one still picture at 25 frames per second, without a warning, whatever the name of the file ends with. With
# `-f apng`, it reads all frames.
# Source: apng_probe in libavformat/apngdec.c, which sees only the first bytes of the file.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install imageio-ffmpeg==0.8.1
cat > "$folder/check.py" <<'PY'
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import imageio_ffmpeg

folder, program = pathlib.Path(sys.argv[1]), imageio_ffmpeg.get_ffmpeg_exe()
print(subprocess.run([program, "-version"], capture_output=True, text=True).stdout.splitlines()[0])
WIDTH = HEIGHT = 16
FRAMES = 4


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def animation(before):
    """An APNG of 4 frames, with a private chunk of this many bytes between IHDR and acTL."""
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))]
    if before:
        parts.append(chunk(b"prVt", bytes(before)))
    parts.append(chunk(b"acTL", struct.pack(">II", FRAMES, 0)))
    number = 0
    for frame in range(FRAMES):
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 7, 0, 0)))
        number += 1
        pixels = zlib.compress((b"\0" + bytes([60 * frame, 90, 120]) * WIDTH) * HEIGHT)
        if frame == 0:
            parts.append(chunk(b"IDAT", pixels))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", number) + pixels))
            number += 1
    return b"".join([*parts, chunk(b"IEND", b"")])


def frames(path, *options):
    told = subprocess.run([program, *options, "-i", path, "-f", "null", "-"], capture_output=True, text=True, check=True)
    return int(re.findall(r"frame=\s*(\d+)", told.stderr)[-1])


for before, wanted in ((0, FRAMES), (1900, FRAMES), (2100, 1), (20_000, 1)):
    path = folder / f"{before}.apng"
    path.write_bytes(animation(before))
    found, told = frames(path), frames(path, "-f", "apng")
    print(f"{before} bytes before acTL: {found} of {FRAMES} frames; with -f apng {told}")
    assert (found, told) == (wanted, FRAMES)
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder"
