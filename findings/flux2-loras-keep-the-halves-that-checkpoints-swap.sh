#!/bin/sh
# What one expects: diffusers gives a LoRA with FLUX.2's original names to the same rows as a checkpoint with these names. The original
# `final_layer.adaLN_modulation.1` computes (shift, scale), diffusers' `norm_out.linear` computes (scale, shift), so the two halves of the rows
# must change places in both.
# What happens with diffusers 0.42.1: the conversion of checkpoints swaps the halves, the conversion of LoRAs renames the layer and leaves the
# rows as they are. A LoRA that was trained on this layer adds its change of the shift to the scale, and the other way round. Nothing warns.
# A LoRA that diffusers itself saved (`transformer.norm_out.linear`) is right. Programs that compare their LoRAs with pictures of diffusers
# must know which of the two orders they compare with.
# Source: convert_flux2_transformer_checkpoint_to_diffusers in src/diffusers/loaders/single_file_utils.py, and
# _convert_non_diffusers_flux2_lora_to_diffusers in src/diffusers/loaders/lora_conversion_utils.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.15.0 numpy transformers==5.24.0
cat > "$folder/check.py" <<'PY'
import diffusers
import torch
from diffusers.loaders import Flux2LoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

print("diffusers", diffusers.__version__)
WIDTH, RANK = 4, 2
layer = "final_layer.adaLN_modulation.1"
# Row r of the layer has the value r: 0 to 3 is the shift, 4 to 7 the scale.
rows = torch.arange(2.0 * WIDTH).view(-1, 1)

checkpoint = convert_flux2_transformer_checkpoint_to_diffusers({f"{layer}.weight": rows.repeat(1, WIDTH)})
checkpoint = checkpoint["norm_out.linear.weight"][:, 0].tolist()
lora = {
    f"diffusion_model.{layer}.lora_A.weight": torch.ones(RANK, WIDTH),
    f"diffusion_model.{layer}.lora_B.weight": rows.repeat(1, RANK),
}
lora = Flux2LoraLoaderMixin.lora_state_dict(lora)
lora = lora["transformer.norm_out.linear.lora_B.weight"][:, 0].tolist()
print("rows of norm_out.linear from a checkpoint:", checkpoint)
print("rows of norm_out.linear from a LoRA:      ", lora)
assert checkpoint == [4, 5, 6, 7, 0, 1, 2, 3]
assert lora == [0, 1, 2, 3, 4, 5, 6, 7]
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py"
