"""OpenAI's Python SDK: every operation on films that the server has.

usage: openai_videos.py URL MODEL, where MODEL makes films from a picture, and no other model makes films
"""

import base64
import io
import sys
import time
import warnings

import openai
from PIL import Image

# The SDK says that its operations on films are deprecated.
warnings.simplefilter("ignore", DeprecationWarning)
FAST = {"steps": 2, "seed": 7}


def picture():
    file = io.BytesIO()
    Image.new("RGB", (32, 16), (200, 40, 40)).save(file, "PNG")
    return file.getvalue()


def ended(client, film):
    began = time.monotonic()
    while film.status in ("queued", "in_progress"):
        assert time.monotonic() - began < 100 and 0 <= film.progress <= 100, film
        time.sleep(0.1)
        film = client.videos.retrieve(film.id)
    return film


def create(client, model):
    queued = client.videos.create(
        model=model, prompt="", seconds="1", size="32x32", input_reference=("a.png", picture()), extra_body=FAST
    )
    assert queued.object == "video" and queued.id.startswith("video_") and queued.model == model, queued
    assert queued.size == "32x32" and queued.seconds == "1" and abs(queued.created_at - time.time()) < 100, queued
    film = ended(client, queued)
    assert film.status == "completed" and film.progress == 100 and film.error is None, film
    assert film.completed_at >= film.created_at and film.expires_at > film.completed_at, film
    content = client.videos.download_content(film.id)
    assert content.response.headers["content-type"] == "video/mp4"
    assert content.read()[4:8] == b"ftyp"
    return film


def other_forms(client, url):
    """The model is found without its name, and a picture may be a reference object."""
    data = "data:image/png;base64," + base64.b64encode(picture()).decode()
    # The SDK's types have this object as an argument, but the SDK takes it for a file and refuses it.
    film = client.videos.create(model="sora-2", prompt="", extra_body={"input_reference": {"image_url": data}, **FAST})
    assert film.size == "32x16", film
    assert client.videos.create_and_poll(prompt="", input_reference=picture(), extra_body=FAST).status == "completed"
    return ended(client, film)


def lists_and_deletes(client, first, second):
    films = list(client.videos.list(limit=2))
    ids = [film.id for film in films]
    assert len(ids) == 3 and set(ids) > {first.id, second.id} and ids == sorted(ids, reverse=True), ids
    assert [film.id for film in client.videos.list(after=second.id).data] == [first.id]
    deleted = client.videos.delete(first.id)
    assert deleted.deleted and deleted.object == "video.deleted" and deleted.id == first.id
    for gone in (lambda: client.videos.retrieve(first.id), lambda: client.videos.download_content(first.id)):
        try:
            gone()
        except openai.NotFoundError as error:
            assert error.type == "not_found_error", error
        else:
            raise AssertionError("a deleted film was found")


def errors(client, model, film):
    for fields, param, code in [
        ({"seconds": "1000"}, "seconds", "out_of_range"),
        ({"seconds": "1", "extra_body": {"frames": 3}}, "seconds", "conflict"),
        ({"size": "1x1"}, "size", "out_of_range"),
        ({"model": "nothing"}, "model", "model_not_found"),
        ({"model": "emoji"}, "model", "unsupported_for_model"),
        ({"input_reference": openai.omit}, "input_reference", "missing_required_parameter"),
    ]:
        try:
            client.videos.create(**{"model": model, "prompt": "", "input_reference": picture(), **fields})
        except openai.BadRequestError as error:
            assert (error.param, error.code) == (param, code) and error.request_id, error
        else:
            raise AssertionError(f"{fields} was accepted")
    try:
        client.videos.download_content(film.id, variant="thumbnail")
    except openai.BadRequestError as error:
        assert error.code == "unsupported_parameter", error
    else:
        raise AssertionError("there was a thumbnail")


def main(url, model):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="not-needed")
    first = create(client, model)
    second = other_forms(client, url)
    errors(client, model, second)
    lists_and_deletes(client, first, second)


main(*sys.argv[1:])
