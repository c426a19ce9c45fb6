"""webuiapi: every call that concerns pictures, models and samplers. usage: webui.py URL"""

import sys
import threading
import time
from urllib.parse import urlsplit

import webuiapi
from PIL import Image

address = urlsplit(sys.argv[1])


def client():
    return webuiapi.WebUIApi(host=address.hostname, port=address.port)


api = client()
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
other = client()
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
