"""LangChain's call for pictures. usage: langchain_images.py URL"""

import sys
import urllib.request
import warnings

warnings.simplefilter("ignore")
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper  # noqa: E402


def wrapper(size, **options):
    return DallEAPIWrapper(api_key="not-needed", base_url=f"{sys.argv[1]}/v1", size=size, **options)


# The wrapper names OpenAI's model, and reads nothing but the addresses of the pictures.
addresses = wrapper("64x64", n=2).run("a red fox").split("\n")
assert len(addresses) == 2, addresses
for address in addresses:
    with urllib.request.urlopen(address) as file:
        assert file.read().startswith(b"\x89PNG")

try:
    wrapper("1x1").run("a red fox")
except Exception as error:
    assert error.status_code == 400 and error.param == "size", error
else:
    raise AssertionError("a size of 1x1 was accepted")
