"""What schemathesis must know to test this server quickly and to read all of its answers."""

import itertools
import json

import schemathesis

# Every drawing takes a moment; the contract does not depend on the number of steps.
FEW_STEPS = 2
MOST_STEPS = 30
OTHER_STEPS = {"num_inference_steps", "sigmas", "timesteps"}
DRAWING = {
    "createImage", "createImagePng", "createImageJpg", "createImageWebp", "putImage",
    "openaiGenerate", "openaiEdit", "openaiVary", "sdapiTxt2img", "sdapiImg2img", "ollamaGenerate",
}
fresh = itertools.count()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Describes the events of streams as schemathesis reads them: `data` is the text of a JSON document, `id` is a text
    that also counts for later events without one, and an event without a name is a `message`."""
    schemas = raw_schema["components"]["schemas"]
    for name in ("StreamEvent", "OpenAiStreamEvent"):
        for kind in schemas[name]["oneOf"]:
            fields = kind["properties"]
            fields["id"] = {"type": "string", "pattern": "^[0-9]+$"}
            if "event" not in fields:
                fields["event"] = {"const": "message"}
            if fields["data"] != {"const": ""}:
                fields["data"] = {
                    "type": "string", "contentMediaType": "application/json", "contentSchema": fields["data"],
                }
    # `lines` reads such an answer as a list.
    for path in raw_schema["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict):
                for response in operation.get("responses", {}).values():
                    line = response.get("content", {}).get("application/x-ndjson")
                    if line:
                        line["schema"] = {"type": "array", "minItems": 1, "items": line["schema"]}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives each request its own idempotency key, since different requests under the key of the example are refused, and
    lets requests draw with few steps."""
    for name in list(case.headers or {}):
        if name.lower() == "idempotency-key":
            case.headers[name] = f"{case.headers[name]}-{next(fresh)}"
    body = case.body
    if case.operation.definition.raw.get("operationId") in DRAWING and isinstance(body, dict):
        steps = body.get("steps", MOST_STEPS)
        if type(steps) is int and FEW_STEPS < steps <= MOST_STEPS and not OTHER_STEPS & set(body):
            body["steps"] = FEW_STEPS


@schemathesis.deserializer("image/png", "image/jpeg", "image/webp")
def picture(context, response):
    """A picture is checked as a text, as openapi.yaml describes it."""
    return response.content.decode("latin-1")


@schemathesis.deserializer("application/x-ndjson")
def lines(context, response):
    """Lines of JSON are checked as the list of their objects."""
    return [json.loads(line) for line in response.content.splitlines()]
