#!/bin/sh
# What one expects: a prompt means the same to WanPipeline wherever diffusers is installed, and what is missing is named.
# What happens with diffusers 0.42.1: prompts are repaired with ftfy if it is installed. ftfy is no dependency, so
# `pip install diffusers transformers` leaves it out, and WanPipeline then skips the repair without a word: a prompt
# with a curly apostrophe, an ellipsis or a ligature, as phones and word processors write them, has other tokens, and
# with the same seed becomes another film. WanImageToVideoPipeline fails instead, with a NameError about ftfy.
# Source: basic_clean in src/diffusers/pipelines/wan/pipeline_wan.py and pipeline_wan_i2v.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install diffusers==0.42.1 torch==2.15.0 numpy transformers==5.24.0
cat > "$folder/check.py" <<'PY'
import sys
import warnings

import diffusers
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_i2v

warnings.simplefilter("error")
prompt = "It\u2019s the \ufb01rst snow"
cleaned = pipeline_wan.prompt_clean(prompt)
try:
    of_picture = pipeline_wan_i2v.prompt_clean(prompt)
except NameError as error:
    of_picture = f"NameError: {error}"
print("diffusers", diffusers.__version__, "with ftfy:" if sys.argv[1] == "with" else "without ftfy:")
print("  WanPipeline reads            ", ascii(cleaned))
print("  WanImageToVideoPipeline reads", ascii(of_picture))
repaired = "It's the first snow"
if sys.argv[1] == "with":
    assert (cleaned, of_picture) == (repaired, repaired)
else:
    assert cleaned == prompt and of_picture.startswith("NameError")
PY
"$folder/venv/bin/python" "$folder/check.py" without
$pip install ftfy==6.3.1
"$folder/venv/bin/python" "$folder/check.py" with
echo "as described"
