#!/bin/sh
# What one expects: `layers_per_block` of AutoencoderKLTemporalDecoder says how many layers a block has, and the middle
# block of the decoder runs all that it has: as in AutoencoderKL, a residual layer, attention and a residual layer, or
# more of them.
# What happens with diffusers 0.42.1: the middle block has as many residual layers as `layers_per_block` says, always
# one attention, and runs the first layer and then pairs of attention and layer, so long as both are left. Only 2, the
# number of Stable Video Diffusion, fits that. With 1, the default of the class, attention never runs; from 3 on, the
# third and later layers never run. The weights of what never runs are made, counted, saved and loaded like the others,
# and have no effect: with others, the output keeps its bits. A port that runs the attention that the file holds
# decodes other pictures.
# Source: MidBlockTemporalDecoder in src/diffusers/models/unets/unet_3d_blocks.py; the default in __init__ of
# src/diffusers/models/autoencoders/autoencoder_kl_temporal_decoder.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install diffusers==0.42.1 torch==2.15.0 numpy transformers==5.24.0
cat > "$folder/check.py" <<'PY'
import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

print("diffusers", diffusers.__version__)
latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def idle(name, model, **arguments):
    """Parts of the decoder's middle block whose weights are saved and have no effect on what it decodes."""
    middle = model.decoder.mid_block
    parts = {f"attentions.{i}": part for i, part in enumerate(middle.attentions)}
    parts |= {f"resnets.{i}": part for i, part in enumerate(middle.resnets)}
    before = model.decode(latents, **arguments).sample
    found = []
    for label, part in parts.items():
        assert any(key.startswith(f"decoder.mid_block.{label}.") for key in model.state_dict())
        weights = {key: value.clone() for key, value in part.state_dict().items()}
        for weight in part.parameters():
            weight.add_(torch.randn_like(weight))
        if torch.equal(model.decode(latents, **arguments).sample, before):
            found.append(label)
        part.load_state_dict(weights)
    print(f"{name}: of {', '.join(parts)} these never run: {', '.join(found) or 'none'}")
    return found


torch.manual_seed(0)
assert idle("AutoencoderKL, layers_per_block=1", AutoencoderKL(block_out_channels=(32,), layers_per_block=1)) == []
default = AutoencoderKLTemporalDecoder(block_out_channels=(32,))
assert default.config.layers_per_block == 1
assert idle("AutoencoderKLTemporalDecoder, the default", default, num_frames=3) == ["attentions.0"]
for layers, wanted in ((2, []), (3, ["resnets.2"]), (4, ["resnets.2", "resnets.3"])):
    model = AutoencoderKLTemporalDecoder(block_out_channels=(32,), layers_per_block=layers)
    assert idle(f"AutoencoderKLTemporalDecoder, layers_per_block={layers}", model, num_frames=3) == wanted
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py"
