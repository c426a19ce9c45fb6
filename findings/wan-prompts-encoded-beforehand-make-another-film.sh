#!/bin/sh
# What one expects: WanPipeline makes the same film from a prompt and from the states that its own `encode_prompt` returns
# for this prompt, both with their defaults; padding behind the prompt has no effect.
# What happens with diffusers 0.42.1: `encode_prompt` pads to 226 tokens by default, the call of the pipeline to 512. The
# padding is zeros, but it has an effect: the transformer projects it with biases and attends to it without a mask. So
# states that were encoded beforehand, to save the memory of UMT5, make another film than the prompt, without a warning.
# With `max_sequence_length=512` in `encode_prompt`, both are equal.
# Source: encode_prompt and __call__ in src/diffusers/pipelines/wan/pipeline_wan.py; WanTransformerBlock in
# src/diffusers/models/transformers/transformer_wan.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install diffusers==0.42.1 torch==2.15.0 numpy transformers==5.24.0 ftfy==6.3.1
cat > "$folder/check.py" <<'PY'
import inspect

import diffusers
import torch
from diffusers import WanPipeline, WanTransformer3DModel

print("diffusers", diffusers.__version__)
default = lambda method: inspect.signature(method).parameters["max_sequence_length"].default
beforehand, in_the_call = default(WanPipeline.encode_prompt), default(WanPipeline.__call__)
print(f"max_sequence_length: {beforehand} in encode_prompt, {in_the_call} in the call")
assert (beforehand, in_the_call) == (226, 512)

torch.manual_seed(0)
network = WanTransformer3DModel(
    num_attention_heads=2, attention_head_dim=16, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=2,
).eval()
latents, prompt = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 9, 32)


@torch.no_grad()
def predicted(tokens):
    states = torch.cat([prompt, prompt.new_zeros(1, tokens - prompt.shape[1], 32)], dim=1)
    return network(latents, torch.tensor([500]), states, return_dict=False)[0]


short, long = predicted(beforehand), predicted(in_the_call)
difference = float((short - long).abs().max() / long.abs().max())
print(f"one prompt of 9 tokens with both paddings: predictions differ by {difference:.1%} of the largest value")
assert difference > 1e-3
assert torch.equal(long, predicted(in_the_call))
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py"
