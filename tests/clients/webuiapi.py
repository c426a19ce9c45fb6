"""Runs webuiapi, pinned, against a server with the embedded model.

    python3 tests/clients/webuiapi.py target/debug/latentd

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

PACKAGE = "webuiapi==0.9.17"


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
    # The folder of this script has a file with the name of the package.
    sys.path = [path for path in sys.path if pathlib.Path(path).resolve() != pathlib.Path(__file__).resolve().parent]
    import threading

    import webuiapi
    from PIL import Image

    api = webuiapi.WebUIApi(host="127.0.0.1", port=port)
    same = dict(prompt="a (red:1.2) fox", width=64, height=64, steps=4, seed=7)

    first = api.txt2img(**same)
    assert first.image.size == (64, 64) and first.info["all_seeds"] == [7], first.info
    assert first.info["notes"] == [], first.info["notes"]
    assert api.txt2img(**same).image.tobytes() == first.image.tobytes()

    many = api.txt2img(**{**same, "n_iter": 2, "batch_size": 2, "sampler_name": "DPM++ 2M", "scheduler": "Karras"})
    assert len(many.images) == 4 and "Sampler: DPM++ 2M, Schedule type: Karras" in many.info["infotexts"][0]

    text = api.png_info(first.image).info
    assert text == first.info["infotexts"][0], text

    again = api.img2img(images=[first.image], **same, denoising_strength=0.6)
    assert again.image.size == (64, 64)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    half = api.img2img(images=[first.image], mask_image=mask, inpaint_full_res=False, mask_blur=0, **same)
    box = (32, 0, 64, 64)
    assert half.image.crop(box).tobytes() == first.image.convert("RGB").crop(box).tobytes(), "the kept half changed"

    assert "emoji-canny" in api.controlnet_model_list()
    unit = webuiapi.ControlNetUnit(image=first.image, module="canny", model="emoji-canny")
    assert api.txt2img(**same, controlnet_units=[unit]).image.size == (64, 64)

    assert "emoji" in api.util_get_model_names() and api.util_get_current_model() == "emoji"
    api.util_set_model("emoji")
    assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
    api.util_wait_for_ready(check_interval=0.1)
    for read in (api.get_cmd_flags, api.get_loras, api.get_embeddings, api.get_upscalers, api.get_memory, api.get_scripts):
        read()

    answers = []
    long = threading.Thread(target=lambda: answers.append(api.txt2img(**{**same, "steps": 1000, "batch_size": 4})))
    long.start()
    other = webuiapi.WebUIApi(host="127.0.0.1", port=port)
    while not (seen := other.get_progress())["current_image"]:
        time.sleep(0.05)
    assert 0 < seen["progress"] < 1 and seen["state"]["sampling_steps"] == 1000, seen
    other.interrupt()
    long.join()
    assert answers[0].images == [] and answers[0].info["notes"], answers
    try:
        api.txt2img(**{**same, "sampler_name": "none such"})
    except RuntimeError as error:
        assert error.args[0] == 422 and "sampler_name must be one of" in error.args[1], error
    else:
        raise AssertionError("an unknown sampler is accepted")
    print("webuiapi: all calls succeed")


if __name__ == "__main__":
    if sys.argv[1] == "--inner":
        inner(int(sys.argv[2]))
    else:
        outer(sys.argv[1])
