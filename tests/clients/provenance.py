"""c2pa-python: the content credentials of each format, of an edit, and of changed files. usage: provenance.py URL"""

import base64
import io
import json
import sys

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

    changed = bytearray(file)
    changed[-64] ^= 1
    _, faults = read(kind, bytes(changed))
    assert "assertion.dataHash.mismatch" in faults, (name, faults)

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
