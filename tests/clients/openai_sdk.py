"""OpenAI's Python SDK: every operation on pictures, streams, errors and repeated requests.

usage: openai_sdk.py URL BUSY_URL KEY, where KEY permits one request at a time to the server of BUSY_URL
"""

import base64
import io
import json
import sys
import tempfile
import threading
import time
import urllib.request
import warnings

import httpx2
import openai
from PIL import Image

# The SDK says that variations are deprecated.
warnings.simplefilter("ignore", DeprecationWarning)
FAST = {"steps": 2, "seed": 7}


def client_of(url, api_key="not-needed", **options):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, **options)


def picture(alpha):
    """A red PNG of 64 × 64 pixels whose upper half has this alpha."""
    image = Image.new("RGBA", (64, 64), (200, 40, 40, 255))
    image.paste((200, 40, 40, alpha), (0, 0, 64, 32))
    return encoded(image)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def named(content):
    file = io.BytesIO(content)
    file.name = "fox.png"
    return file


def generate(client):
    answer = client.images.generate(prompt="a red fox", extra_body=FAST, response_format="b64_json")
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG") and answer.data[0].url is None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    again = client.images.generate(prompt="a red fox", extra_body=FAST)
    assert again.data[0].b64_json == answer.data[0].b64_json, "the same seed draws the same picture"
    both = client.images.generate(
        prompt="a red fox", model="dall-e-3", n=2, size="auto", quality="low", style="vivid", user="mia",
        background="auto", moderation="low", output_format="jpeg", output_compression=80,
    )
    assert len(both.data) == 2 and base64.b64decode(both.data[0].b64_json).startswith(b"\xff\xd8\xff")
    with urllib.request.urlopen(both.data[1].url) as file:
        assert file.read() == base64.b64decode(both.data[1].b64_json)


def edit(client):
    opaque, holed = picture(255), picture(0)
    with tempfile.TemporaryFile(suffix=".png") as file:
        file.write(holed)
        file.seek(0)
        for image in (named(holed), [named(holed)], holed, file):
            edited = client.images.edit(image=image, prompt="a green fox", extra_body=FAST)
            assert edited.data[0].b64_json, image
    masked = client.images.edit(image=opaque, mask=holed, prompt="a green fox", n=1, size="64x64", extra_body=FAST)
    assert masked.size == "64x64"
    drawn, before = decoded(masked.data[0].b64_json), Image.open(io.BytesIO(opaque)).convert("RGB")
    # At the edge of the mask the two may mix.
    kept, redrawn = (0, 40, 64, 64), (0, 0, 64, 24)
    assert drawn.crop(kept).tobytes() == before.crop(kept).tobytes(), "an opaque part of the mask changed"
    assert drawn.crop(redrawn).tobytes() != before.crop(redrawn).tobytes(), "the transparent part did not change"
    varied = client.images.create_variation(image=opaque, n=2, size="64x64", extra_body=FAST)
    assert len(varied.data) == 2 and varied.data[0].b64_json


def stream(client):
    events = list(client.images.generate(prompt="a red fox", stream=True, partial_images=2, extra_body={"steps": 6}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert all(base64.b64decode(event.b64_json).startswith(b"\x89PNG") for event in events)
    assert events[-1].usage.total_tokens > 0
    image = picture(255)
    events = list(client.images.edit(image=image, prompt="a", stream=True, partial_images=1, extra_body={"steps": 6}))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def errors(client):
    for fields, param, code in [
        ({"background": "transparent"}, "background", "unsupported_parameter"),
        ({"size": "1x1"}, "size", "out_of_range"),
        ({"model": "nothing"}, "model", "model_not_found"),
        ({"background": "transparent", "stream": True}, "background", "unsupported_parameter"),
    ]:
        try:
            client.images.generate(prompt="a", **fields)
        except openai.BadRequestError as error:
            assert (error.param, error.code) == (param, code) and error.request_id, error
            assert "Error code: 400" in str(error) and param in str(error), error
        else:
            raise AssertionError(f"{fields} was accepted")


def generations(url):
    with urllib.request.urlopen(f"{url}/v1/images?limit=100") as answer:
        return json.load(answer)["data"]


def lost_answer(url, client):
    """A client that does not wait for the answer sends its request again, and gets the generation of its first try."""
    began = time.monotonic()
    client.images.generate(prompt="a fox", extra_body={"steps": 10})
    steps = min(1000, max(10, round(10 * 6 / (time.monotonic() - began))))
    before = len(generations(url))
    impatient = client.with_options(timeout=2, max_retries=20)
    answer = impatient.images.generate(prompt="a slow fox", extra_body={"steps": steps})
    assert len(answer.data) == 1
    assert len(generations(url)) == before + 1, "the picture was drawn more than once"


def refused(url, key):
    """A full queue is refused with 429 and Retry-After, and the SDK's later try succeeds."""
    statuses, answers = [], []
    http = httpx2.Client(event_hooks={"response": [lambda response: statuses.append(response.status_code)]})
    client = client_of(url, key, max_retries=20, http_client=http)

    def draw():
        answers.append(client.images.generate(prompt="a fox", extra_body={"steps": 30}))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(answers) == 4, "not every request succeeded in the end"
    assert 429 in statuses and set(statuses) == {200, 429}, statuses


def main(url, busy, key):
    client = client_of(url)
    assert "emoji" in [model.id for model in client.models.list()]
    assert client.models.retrieve("emoji").id == "emoji"
    generate(client)
    edit(client)
    stream(client)
    errors(client)
    lost_answer(url, client)
    refused(busy, key)


main(*sys.argv[1:])
