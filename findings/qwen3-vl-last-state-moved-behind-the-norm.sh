#!/bin/sh
# What one expects: the last entry of `hidden_states` of a transformers model is the same tensor in all releases, for the same weights and the
# same tokens. The documentation describes one state for the embeddings and one for each layer.
# What happens with Qwen3VLForConditionalGeneration: with transformers 4.57.3, `hidden_states[-1]` is the output of the last layer before the
# final RMS norm; with 5.24.0 it is the state after the norm, `last_hidden_state`. No warning tells of it. A pipeline that takes
# `hidden_states[-1]` as its text embedding, such as diffusers' DreamLite, gets numbers of another scale (here 34 times larger) when only
# transformers is upgraded; models that were trained with version 4 then draw artifacts.
# Source: Qwen3VLModel and its text model in src/transformers/models/qwen3_vl/modeling_qwen3_vl.py of both releases, and how version 5
# collects states in src/transformers/utils/output_capturing.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install torch==2.15.0 numpy requests transformers==5.24.0
$pip install --target "$folder/old" --no-deps transformers==4.57.3 huggingface-hub==0.36.0 tokenizers==0.22.1
cat > "$folder/check.py" <<'PY'
import sys

import torch
import transformers
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

is_old = transformers.__version__.startswith("4.")
torch.manual_seed(0)
rope = {"mrope_section": [2, 1, 1], "rope_type": "default", "mrope_interleaved": True}
text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
text |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
text |= {"rope_scaling": rope, "rope_theta": 1e4} if is_old else {"rope_parameters": rope | {"rope_theta": 1e4}}
vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32, "patch_size": 4}
vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
special = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **special)).eval()
with torch.no_grad():
    ids = torch.tensor([[1, 2, 3]])
    states = model(input_ids=ids, output_hidden_states=True).hidden_states
    after_norm = model.model(input_ids=ids).last_hidden_state
    norm_again = model.model.language_model.norm(states[-1])
is_after = torch.equal(states[-1], after_norm)
is_before = torch.allclose(norm_again, after_norm, atol=1e-6)
print(f"transformers {transformers.__version__}: {len(states)} states, the last one is", end=" ")
print("after the norm" if is_after else "before the norm" if is_before else "something else", end=", ")
print(f"standard deviation {states[-1].std():.4f}")
assert len(states) == 3 and (is_before and not is_after if is_old else is_after and not is_before)
PY
PYTHONPATH="$folder/old" "$folder/venv/bin/python" "$folder/check.py"
"$folder/venv/bin/python" "$folder/check.py"
echo "as described"
