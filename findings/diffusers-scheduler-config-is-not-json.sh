#!/bin/sh
# What one expects: scheduler_config.json of a saved diffusers pipeline is JSON, as its name says, and any JSON parser reads it.
# What happens: diffusers 0.42.1 writes the default of three schedulers (DPM-Solver++ multistep and singlestep, SA-Solver) as
#   "lambda_min_clipped": -Infinity
# which JSON does not have (RFC 8259, section 6). Python's json module writes and reads it; parsers of JSON as it is defined, such as
# serde_json and JSON.parse, refuse the file, and with it the whole model. A swap to another class carries the key along: the file of an Euler sampler has it
# too, where no key means anything infinite.
# Source: to_json_string in src/diffusers/configuration_utils.py; __init__ in src/diffusers/schedulers/scheduling_dpmsolver_multistep.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 numpy transformers
cat > "$folder/check.py" <<'PY'
import json
import sys

from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, EulerDiscreteScheduler, SASolverScheduler


def refuse(word):
    raise ValueError(f"{word} is no JSON")


def saved(scheduler, folder):
    scheduler.save_pretrained(folder)
    return open(f"{folder}/scheduler_config.json").read()


folder = sys.argv[1]
multistep = DPMSolverMultistepScheduler()
multistep.save_pretrained(folder)
swapped = EulerDiscreteScheduler.from_config(DPMSolverMultistepScheduler.from_pretrained(folder).config)
for scheduler in (multistep, DPMSolverSinglestepScheduler(), SASolverScheduler(), swapped):
    text = saved(scheduler, folder)
    line = next(line for line in text.splitlines() if "lambda_min_clipped" in line)
    print(type(scheduler).__name__, line.strip())
    assert line.strip().rstrip(",") == '"lambda_min_clipped": -Infinity'
    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as why:
        assert str(why) == "-Infinity is no JSON"
    else:
        sys.exit("the file is JSON now")
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder/saved"
