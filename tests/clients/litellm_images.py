"""LiteLLM's calls for pictures. usage: litellm_images.py URL"""

import base64
import io
import sys

import litellm

SHARED = {"model": "openai/emoji", "api_base": f"{sys.argv[1]}/v1", "api_key": "not-needed"}

drawn = litellm.image_generation("a red fox", n=2, size="64x64", extra_body={"steps": 2, "seed": 7}, **SHARED)
assert len(drawn.data) == 2 and drawn.data[1].url, drawn
file = base64.b64decode(drawn.data[0].b64_json)
assert file.startswith(b"\x89PNG") and drawn.usage.total_tokens > 0

for image in (io.BytesIO(file), [io.BytesIO(file)]):
    edited = litellm.image_edit(image=image, prompt="a green fox", size="64x64", **SHARED)
    assert base64.b64decode(edited.data[0].b64_json).startswith(b"\x89PNG"), edited

varied = litellm.image_variation(image=io.BytesIO(file), n=1, size="64x64", **SHARED)
assert len(varied.data) == 1 and (varied.data[0].url or varied.data[0].b64_json), varied

try:
    litellm.image_generation("a red fox", size="1x1", **SHARED)
except litellm.BadRequestError as error:
    assert "size must have a width" in str(error), error
else:
    raise AssertionError("a size of 1x1 was accepted")
