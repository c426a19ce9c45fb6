"""Pictures to mark: those of the embedded model, and parts of packaged photographs."""

import pathlib
import subprocess

import numpy as np
import skimage
import sklearn
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]

PHOTOGRAPHS = (
    "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png color.png grass.png gravel.png"
    " hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png page.png retina.jpg rocket.jpg text.png"
).split()


def drawn(program, folder, count):
    """`count` pictures of the embedded model, each of another thing, kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    things = [line.split("\t")[1] for line in (ROOT / "training/concepts.tsv").read_text().splitlines() if "\t" in line]
    for index, thing in enumerate(things[:count]):
        file = folder / f"{index:03}.png"
        if not file.exists():
            prompt = thing.split(",")[0].removeprefix("*")
            command = [program, "generate", prompt, "--set", f"seed={index}", "-o", file]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield np.asarray(Image.open(file).convert("RGB"))


def photographs():
    """The packaged photographs, whole."""
    data = pathlib.Path(skimage.__file__).parent / "data"
    more = pathlib.Path(sklearn.__file__).parent / "datasets/images"
    for file in [*(data / name for name in PHOTOGRAPHS), more / "china.jpg", more / "flower.jpg"]:
        yield np.asarray(Image.open(file).convert("RGB"))


def parts(count, side, seed):
    """`count` random squares of the photographs; a photograph that is too small is left out."""
    rng = np.random.default_rng(seed)
    whole = [picture for picture in photographs() if min(picture.shape[:2]) >= side]
    for index in range(count):
        picture = whole[index % len(whole)]
        top, left = (rng.integers(0, size - side + 1) for size in picture.shape[:2])
        yield np.ascontiguousarray(picture[top : top + side, left : left + side])
