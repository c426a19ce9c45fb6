"""Ollama's client: pictures, streams and lists. usage: ollama_python.py URL"""

import base64
import sys

import ollama

client = ollama.Client(host=sys.argv[1])
assert [model.model for model in client.list().models] == ["emoji:latest"]
assert client.show("emoji").details.format == "safetensors"

same = dict(model="emoji", prompt="a red fox", width=64, height=64, steps=4, options={"seed": 7})
whole = client.generate(**same)
picture = base64.b64decode(whole.image)
assert whole.done and whole.done_reason == "stop" and picture.startswith(b"\x89PNG"), whole
assert whole.total_duration > 0

*lines, last = client.generate(**same, stream=True)
assert all(line.total == 4 and not line.done and line.image is None for line in lines), lines
assert [line.completed for line in lines] == sorted(line.completed for line in lines)
assert last.done and base64.b64decode(last.image) == picture, "the stream draws another picture"

again = client.generate(**same, images=[picture])
assert base64.b64decode(again.image) != picture
assert client.generate(model="emoji").done_reason == "load"

try:
    client.generate(**{**same, "steps": 100000})
except ollama.ResponseError as error:
    assert error.status_code == 400 and "steps" in error.error, error
else:
    raise AssertionError("100000 steps were accepted")
