"""Runs Ollama's Python client, pinned, against a server with the embedded model.

    python3 tests/clients/ollama_python.py target/debug/latentd

Installs the package into a temporary virtual environment and starts the server on a free port of the loopback
interface with a temporary data folder.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv

PACKAGE = "ollama==0.6.3"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def outer(binary):
    with tempfile.TemporaryDirectory() as folder:
        venv.create(f"{folder}/venv", with_pip=True)
        python = f"{folder}/venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        port, operator = free_port(), free_port()
        server = subprocess.Popen(
            [os.path.abspath(binary), "serve"],
            env={
                **os.environ,
                "LATENTD_HTTP__BIND": f"127.0.0.1:{port}",
                "LATENTD_OPERATOR__BIND": f"127.0.0.1:{operator}",
                "LATENTD_DATA_DIR": f"{folder}/data",
            },
            cwd=folder,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            subprocess.run([python, __file__, "--inner", str(port)], check=True)
        finally:
            server.terminate()
            server.wait()


def wait_for(url, server):
    while server.poll() is None:
        try:
            urllib.request.urlopen(url)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server ended")


def inner(port):
    import base64

    import ollama

    client = ollama.Client(host=f"http://127.0.0.1:{port}")
    assert [model.model for model in client.list().models] == ["emoji:latest"]

    same = dict(model="emoji", prompt="a red fox", width=64, height=64, steps=4, options={"seed": 7})
    whole = client.generate(**same)
    picture = base64.b64decode(whole.image)
    assert whole.done and whole.done_reason == "stop" and picture.startswith(b"\x89PNG"), whole
    assert whole.total_duration > 0

    *lines, last = client.generate(**same, stream=True)
    assert lines and all(line.total == 4 and not line.done and line.image is None for line in lines), lines
    assert [line.completed for line in lines] == sorted(line.completed for line in lines)
    assert last.done and base64.b64decode(last.image) == picture, "the stream draws the same picture"

    again = client.generate(**same, images=[picture])
    assert base64.b64decode(again.image) != picture
    assert client.generate(model="emoji").done_reason == "load"

    try:
        client.generate(**{**same, "steps": 100000})
        raise AssertionError("it was not refused")
    except ollama.ResponseError as error:
        assert error.status_code == 400 and "steps" in error.error, error
    print("all right")


if __name__ == "__main__":
    if sys.argv[1] == "--inner":
        inner(int(sys.argv[2]))
    else:
        outer(sys.argv[1])
