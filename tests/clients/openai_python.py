"""Runs OpenAI's Python SDK against a server that this script starts: python3 tests/clients/openai_python.py target/debug/latentd

Without openai 3.57.0 in this Python, the script makes a temporary virtual environment with it and runs there.
"""

import base64
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import venv
import zlib

VERSION = "3.57.0"


def in_environment():
    try:
        import openai

        if openai.__version__ == VERSION:
            return
    except ImportError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        subprocess.run([f"{folder}/bin/pip", "install", "-q", f"openai=={VERSION}"], check=True)
        sys.exit(subprocess.run([f"{folder}/bin/python", *sys.argv]).returncode)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, binary, **settings):
        self.data = tempfile.TemporaryDirectory()
        self.port, operator = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            "LATENTD_DATA_DIR": self.data.name,
            "LATENTD_HTTP__BIND": f"127.0.0.1:{self.port}",
            "LATENTD_OPERATOR__BIND": f"127.0.0.1:{operator}",
            "LATENTD_LOG__FILTER": "warn",
            **settings,
        }
        self.process = subprocess.Popen([binary, "serve"], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{operator}/readyz", timeout=5)
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server is not ready")

    def generations(self):
        import json

        with urllib.request.urlopen(f"{self.url}/v1/images") as answer:
            return json.load(answer)["data"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.data.cleanup()


def png(alpha):
    """A picture of 64 × 64 pixels whose upper half has this alpha."""
    rows = b"".join(b"\0" + bytes([200, 40, 40, alpha if y < 32 else 255]) * 64 for y in range(64))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def named(name, content):
    file = io.BytesIO(content)
    file.name = name
    return file


def check(server):
    import openai

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="not-needed", max_retries=2)
    assert [model.id for model in client.models.list()], "models.list"

    fast = {"steps": 2, "seed": 7}
    answer = client.images.generate(prompt="a red fox", extra_body=fast, response_format="b64_json")
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG") and answer.data[0].url is None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    both = client.images.generate(
        prompt="a red fox", model="dall-e-3", n=2, size="auto", quality="low", style="vivid", user="mia",
        background="auto", moderation="low", output_format="jpeg", output_compression=80,
    )
    assert len(both.data) == 2 and base64.b64decode(both.data[0].b64_json).startswith(b"\xff\xd8\xff")
    with urllib.request.urlopen(both.data[1].url) as picture:
        assert picture.read() == base64.b64decode(both.data[1].b64_json)

    opaque, holed = png(255), png(0)
    for image in (named("a.png", holed), [named("a.png", holed)], holed, open_file(holed)):
        edited = client.images.edit(image=image, prompt="a green fox", extra_body=fast)
        assert edited.data[0].b64_json, image
    masked = client.images.edit(image=opaque, mask=holed, prompt="a green fox", n=1, size="64x64", extra_body=fast)
    assert masked.size == "64x64"
    varied = client.images.create_variation(image=opaque, n=1, size="64x64", extra_body=fast)
    assert varied.data[0].b64_json

    events = list(client.images.generate(prompt="a red fox", stream=True, partial_images=2, extra_body={"steps": 6}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert all(base64.b64decode(event.b64_json).startswith(b"\x89PNG") for event in events)
    assert events[-1].usage.total_tokens > 0
    events = list(client.images.edit(image=opaque, prompt="a", stream=True, partial_images=1, extra_body={"steps": 6}))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]

    for fields, param, code in [
        ({"background": "transparent"}, "background", "unsupported_parameter"),
        ({"size": "1x1"}, "size", "out_of_range"),
        ({"model": "nothing"}, "model", "model_not_found"),
    ]:
        try:
            client.images.generate(prompt="a", **fields)
            raise AssertionError(f"{fields} was accepted")
        except openai.BadRequestError as error:
            assert (error.param, error.code) == (param, code) and error.request_id, error
            assert "Error code: 400" in str(error) and param in str(error), error

    lost_answer(server, client)


def open_file(content):
    file = tempfile.NamedTemporaryFile(suffix=".png")
    file.write(content)
    file.flush()
    return open(file.name, "rb")


def lost_answer(server, client):
    """A client whose read times out sends its request again, and gets the generation of its first try."""
    began = time.monotonic()
    client.images.generate(prompt="a fox", extra_body={"steps": 10})
    steps = min(1000, max(10, round(10 * 6 / (time.monotonic() - began))))
    before = len(server.generations())
    impatient = client.with_options(timeout=2, max_retries=12)
    answer = impatient.images.generate(prompt="a slow fox", extra_body={"steps": steps})
    assert len(answer.data) == 1
    assert len(server.generations()) == before + 1, "the picture was drawn more than once"


def refused_and_repeated(binary):
    """A full queue is refused with Retry-After, and the SDK's next try succeeds."""
    import openai

    server = Server(binary, LATENTD_QUEUE__MAX_QUEUED="1", LATENTD_ENGINE__MAX_RUNS="1")
    try:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=5)
        answers = []
        draw = lambda: answers.append(client.images.generate(prompt="a fox", extra_body={"steps": 30}))
        threads = [threading.Thread(target=draw) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(answers) == 4, "not every request succeeded in the end"
    finally:
        server.stop()


def main():
    in_environment()
    server = Server(sys.argv[1])
    try:
        check(server)
    finally:
        server.stop()
    refused_and_repeated(sys.argv[1])
    print("openai", VERSION, "works")


if __name__ == "__main__":
    main()
