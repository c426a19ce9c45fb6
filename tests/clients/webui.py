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
for samples_format in ("jpg", "webp"):
    other = api.txt2img(**same, override_settings={"samples_format": samples_format})
    assert other.info["infotexts"] == [text] and other.info["sampler_name"] == first.info["sampler_name"], other.info

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
unit = webuiapi.ControlNetUnit(image=first.image, model="emoji-canny")
assert api.txt2img(**same, controlnet_units=[unit]).info["notes"] == []
unit.to_dict = lambda known=unit.to_dict(): {**known, "foo": 1, "processor_res": 256, "module": "canny"}
notes = api.txt2img(**same, controlnet_units=[unit]).info["notes"]
assert sorted(note.split()[3] for note in notes) == ["foo", "processor_res", "threshold_a"], notes

assert "emoji" in api.util_get_model_names() and api.util_get_current_model() == "emoji"
api.util_set_model("emoji")
assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
api.util_wait_for_ready(check_interval=0.1)
missing = ("artists", "artist_categories")  # Also missing in the web interface.
for name in dir(api):
    if name.startswith("get_") and name != "get_endpoint" and not name.endswith(missing):
        answer = getattr(api, name)()
        assert "error" not in answer, (name, answer)
for none in (api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers, api.get_realesrgan_models,
             api.get_prompt_styles, api.get_latent_upscale_modes, api.get_upscalers):
    assert none() == [], none
assert api.refresh_checkpoints() == {} and api.skip() == {}
assert api.controlnet_version() == 2 and "canny" in api.controlnet_module_list()
types = api.custom_get("controlnet/control_types")["control_types"]
assert "emoji-canny" in types["All"]["model_list"], types
try:
    api.extra_single_image(first.image)
except RuntimeError as error:
    assert error.args[0] == 404, error
else:
    raise AssertionError("an upscaler was found")

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
