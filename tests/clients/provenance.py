"""c2pa-python: the content credentials of each format, of an edit, and of changed files. usage: provenance.py URL"""

import base64
import io
import json
import sys
import zlib

import requests
from c2pa import Reader
from PIL import Image

url = sys.argv[1]
# The only complaint about an intact file: no trust list has the self-made certificate.
UNTRUSTED = "signingCredential.untrusted"


def draw(**more):
    request = {"prompt": "a red fox", "steps": 2, "width": 64, "height": 64, "seed": 7, **more}
    kind = "image/" + request["output"]["format"]
    answer = requests.post(url + "/v1/images", json=request, headers={"Accept": kind})
    assert answer.status_code == 200, answer.text
    return kind, answer.content


def read(kind, file):
    store = json.loads(Reader(kind, io.BytesIO(file)).json())
    return store["manifests"][store["active_manifest"]], {fault["code"] for fault in store.get("validation_status", [])}


def changed(file):
    """The file with one bit of its compressed pixels changed. A WebP file ends with its credentials, the others with pixels."""
    changed = bytearray(file)
    at = file.find(b"VP8L")
    changed[at + 64 if at > 0 else -64] ^= 1
    return bytes(changed)


def with_another_pixel(png):
    """The PNG with another last pixel, and everything else as it was: a sound file, which every program opens."""
    chunks, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += length + 12
    pixels = bytearray(zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT")))
    pixels[-1] ^= 1
    first = next(index for index, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    others = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    chunks = [*others[:first], (b"IDAT", zlib.compress(pixels)), *others[first:]]
    parts = [len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks]
    return png[:8] + b"".join(parts)


files = {}
for name in ["png", "jpeg", "webp"]:
    kind, file = draw(output={"format": name})
    files[name] = file
    manifest, faults = read(kind, file)
    assert faults == {UNTRUSTED}, (name, faults)
    assert manifest["claim_generator_info"][0]["name"] == "latentd", manifest
    said = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    (action,) = said["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created", action
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia"), action
    generation = said["dev.latentd.generation"]
    assert generation["model"] == "emoji" and generation["request"]["prompt"] == "a red fox", generation

    _, faults = read(kind, changed(file))
    assert "assertion.dataHash.mismatch" in faults, (name, faults)

# A single pixel.
other = with_another_pixel(files["png"])
one, two = (list(Image.open(io.BytesIO(file)).convert("RGB").getdata()) for file in (files["png"], other))
assert sum(a != b for a, b in zip(one, two)) == 1
_, faults = read("image/png", other)
assert "assertion.dataHash.mismatch" in faults, faults

# Programs that know nothing of credentials read the picture and its texts as before.
picture = Image.open(io.BytesIO(files["png"]))
picture.load()
assert picture.size == (64, 64) and picture.text["parameters"].startswith("a red fox\n"), picture.text
assert json.loads(picture.text["latentd"])["seed"] == 7, picture.text
for name in ["jpeg", "webp"]:
    picture = Image.open(io.BytesIO(files[name]))
    picture.load()
    comment = picture.getexif().get_ifd(0x8769)[0x9286]
    assert "a red fox" in comment[8:].decode("utf-16-be"), comment

image = {"b64": base64.b64encode(files["jpeg"]).decode()}
kind, file = draw(image=image, strength=0.5, output={"format": "webp"})
manifest, faults = read(kind, file)
assert faults == {UNTRUSTED}, faults
(ingredient,) = manifest["ingredients"]
assert ingredient["relationship"] == "inputTo" and ingredient["title"] == "image", ingredient
assert ingredient["active_manifest"], ingredient
