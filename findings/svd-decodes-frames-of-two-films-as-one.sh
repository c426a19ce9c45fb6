#!/bin/sh
# What one expects: in a batch of Stable Video Diffusion, each picture becomes a film of its own; what the other
# pictures show does not matter to it. `decode_chunk_size` saves memory: the frames of a film are decoded so many at a
# time.
# What happens with diffusers 0.42.1: StableVideoDiffusionPipeline puts the frames of all films in one row and cuts that
# row into chunks. If `decode_chunk_size` does not divide the number of frames, some chunks hold the end of one film and
# the start of the next, and a chunk that is larger than a film holds more than one. The decoder takes each chunk for a
# single film and mixes its frames over time. So another first picture, with the same noise, changes the second film:
# with 4 frames and chunks of 3, its first two frames; with chunks of 8, all of it. With chunks of 4 or 2, nothing
# changes. Films of num_videos_per_prompt are in the same row. A film of 25 frames has no divisors but 1, 5, 25.
# Source: decode_latents in src/diffusers/pipelines/stable_video_diffusion/pipeline_stable_video_diffusion.py; decode in
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
import transformers
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

print("diffusers", diffusers.__version__)
transformers.logging.set_verbosity_error()
torch.manual_seed(0)
FRAMES = 4
# A small random model of the same classes as the published one.
unet = UNetSpatioTemporalConditionModel(
    down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    block_out_channels=(32, 32),
    layers_per_block=1,
    num_attention_heads=2,
    cross_attention_dim=16,
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24,
    num_frames=FRAMES,
)
vae = AutoencoderKLTemporalDecoder(
    down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"), block_out_channels=(32, 32), layers_per_block=2
)
vision = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1}
vision |= {"num_attention_heads": 2, "image_size": 224, "patch_size": 56}
pipeline = StableVideoDiffusionPipeline(
    vae=vae,
    unet=unet,
    image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)),
    scheduler=EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True
    ),
    feature_extractor=CLIPImageProcessor(),
)
pipeline.set_progress_bar_config(disable=True)
red, green, blue = (Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue"))
latents = torch.randn(2, FRAMES, 4, 8, 8)


def second_film(pictures, chunk):
    same = {"latents": latents, "generator": torch.Generator().manual_seed(1), "num_inference_steps": 2}
    films = pipeline(pictures, height=16, width=16, decode_chunk_size=chunk, output_type="pt", **same).frames
    return films[1]


print("by how much another first picture changes each frame of the second film (values from 0 to 1):")
# Each size of chunk, and how many frames of the second film share a chunk with frames of the first.
for chunk, shared in ((4, 0), (2, 0), (3, 2), (8, 4)):
    difference = second_film([red, blue], chunk) - second_film([green, blue], chunk)
    changes = difference.abs().amax(dim=(1, 2, 3)).tolist()
    print(f"decode_chunk_size={chunk}:", " ".join(f"{change:.6f}" for change in changes))
    assert all(change > 1e-3 for change in changes[:shared])
    assert all(change < 1e-5 for change in changes[shared:])
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py"
