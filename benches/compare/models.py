"""The networks to compare: configurations, random weights, inputs and FLOPs.

Weights are seeded, made by diffusers in float32 in its own layout, and kept in target/compare/models.
"""

import json
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "compare"

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
DOWN = (CROSS, CROSS, CROSS, PLAIN)
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")

# In diffusers, attention_head_dim is the number of heads.
SD15_UNET = dict(
    sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
    attention_head_dim=8, down_block_types=DOWN, up_block_types=UP,
)
# 34.6 million parameters. Every head has 32 channels.
SMALL_UNET = dict(
    sample_size=32, block_out_channels=(64, 128, 256, 256), layers_per_block=2, cross_attention_dim=192,
    attention_head_dim=(2, 4, 8, 8), down_block_types=DOWN, up_block_types=UP,
)
SD15_VAE = dict(
    sample_size=512, block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)
# FLUX.1 dev with 2 of its 19 blocks for two streams, and 4 of its 38 blocks for one stream.
FLUX = dict(
    in_channels=64, num_layers=2, num_single_layers=4, attention_head_dim=128, num_attention_heads=24,
    joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
)
# The encoder of T5 XXL (version 1.1) with 4 of its 24 blocks and a small vocabulary.
T5_XXL = dict(
    vocab_size=4096, d_model=4096, d_kv=64, d_ff=10240, num_layers=4, num_heads=64, relative_attention_num_buckets=32,
    relative_attention_max_distance=128, layer_norm_epsilon=1e-6, feed_forward_proj="gated-gelu",
)

# The U-Net of Stable Video Diffusion, for 8 frames of 320 × 192 pixels.
SVD_UNET = dict(
    sample_size=96, in_channels=8, out_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
    cross_attention_dim=1024, num_attention_heads=(5, 10, 20, 20), addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=768, num_frames=25,
    down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
    up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
)
SVD_CLIP = (8, 8, 24, 40)  # Frames, channels (noise and picture), height, width.


@dataclass(frozen=True)
class Case:
    """One network with one size and batch."""

    group: str
    kind: str  # A key of networks.KINDS; "vae" is a decoder.
    folder: Path  # Contains unet/, vae/, transformer/ or text_encoder/.
    config: dict | None  # None if the weights are part of the repository.
    channels: int
    side: int  # Height and width of the latents; for FLUX the number of patches.
    batch: int
    tokens: int = 0
    width: int = 0  # Width of a token's hidden state.
    bf16: bool = False  # Whether the weights are stored in bfloat16.
    keeps_bf16: bool = False  # Whether latentd keeps them so in memory. Peers always compute with float32 weights.

    @property
    def name(self):
        return self.group if self.kind != "unet" or self.group == "unet-sd15" else f"{self.group}-b{self.batch}"

    @property
    def network(self):
        """The name of the files of inputs, outputs and conversions, which cases with equal weights share."""
        return self.name.removesuffix("-bf16")

    @property
    def inputs(self):
        return WORK / "inputs" / f"{self.network}.safetensors"

    @property
    def reference(self):
        """The file with PyTorch's output for the inputs."""
        return WORK / "references" / f"{self.network}.safetensors"

    @property
    def large(self):
        return self.group in ("unet-sd15", "vae") or self.kind in ("flux", "t5", "svd")


def cases(batches):
    made, embedded = WORK / "models", ROOT / "models" / "emoji"
    text = json.loads((embedded / "text_encoder" / "config.json").read_text())
    unet = json.loads((embedded / "unet" / "config.json").read_text())
    small = dict(kind="unet", folder=made / "small", config=SMALL_UNET, channels=4, tokens=77, width=192)
    large = dict(batch=1, tokens=512, width=4096, bf16=True)
    flux = dict(kind="flux", folder=made / "flux", config=FLUX, channels=64, side=512, **large)
    t5 = dict(kind="t5", folder=made / "t5", config=T5_XXL, channels=0, side=0, **large)
    emoji = dict(folder=embedded, config=None, channels=unet["in_channels"], side=unet["sample_size"])
    return [
        Case("unet-sd15", "unet", made / "sd15", SD15_UNET, 4, 64, 2, 77, 768),
        Case("vae", "vae", made / "sd15", SD15_VAE, 4, 64, 1),
        *(Case("unet-small-32", side=32, batch=batch, **small) for batch in batches),
        *(Case("unet-small-16", side=16, batch=batch, **small) for batch in batches),
        *(
            Case(
                "unet-emoji", "unet", batch=batch, tokens=text["max_position_embeddings"],
                width=unet["cross_attention_dim"], **emoji,
            )
            for batch in batches
        ),
        Case("vae-emoji", "vae", batch=1, **emoji),
        Case("flux", **flux),
        Case("flux-bf16", **flux, keeps_bf16=True),
        Case("t5", **t5),
        Case("t5-bf16", **t5, keeps_bf16=True),
        Case("svd", "svd", made / "svd", SVD_UNET, SVD_CLIP[1], SVD_CLIP[2], 1, width=1024, bf16=True),
    ]


def make(case):
    """Writes the weights and the inputs of a case if they do not exist."""
    from networks import KINDS, fill
    from safetensors.torch import save_file

    kind = KINDS[case.kind]
    stamp = case.folder / kind.part / "made-of.json"
    made_of = json.dumps(case.config, sort_keys=True)
    if case.config is not None and not (stamp.exists() and stamp.read_text() == made_of):
        model = kind.blank(case.config).to_empty(device="cpu")
        if hasattr(model, "tie_weights"):
            model.tie_weights()
        fill(model)
        (model.bfloat16() if case.bf16 else model).save_pretrained(case.folder / kind.part)
        stamp.write_text(made_of)
        case.reference.unlink(missing_ok=True)
    if not case.inputs.exists():
        case.inputs.parent.mkdir(parents=True, exist_ok=True)
        save_file(inputs_of(case), case.inputs)


def inputs_of(case):
    """The random inputs of a case, in the order of the network's arguments."""
    import torch

    random = torch.Generator().manual_seed(2)
    normal = lambda *shape: torch.randn(case.batch, *shape, generator=random)
    if case.kind == "t5":
        return {"ids": torch.randint(T5_XXL["vocab_size"], (case.batch, case.tokens), generator=random)}
    if case.kind == "flux":
        sample = normal(case.side, case.channels)
        text, pooled = normal(case.tokens, case.width), normal(FLUX["pooled_projection_dim"])
        t, guidance = torch.full((case.batch,), 501.0), torch.full((case.batch,), 3.5)
        return {"sample": sample, "t": t, "guidance": guidance, "text": text, "pooled": pooled}
    if case.kind == "svd":
        sample, vector = torch.randn(SVD_CLIP, generator=random), normal(1, case.width)
        motion = torch.tensor([[6.0, 127.0, 0.02]])  # Frames per second minus 1, motion bucket, strength of the noise.
        return {"sample": sample, "t": torch.full((1,), 1.0), "motion": motion, "vector": vector}
    tensors = {"sample": normal(case.channels, case.side, case.side)}
    if case.kind == "unet":
        text = normal(case.tokens, case.width)
        # candle-transformers takes one time for all rows.
        tensors |= {"t": torch.full((case.batch,), 501.0), "text": text}
    return tensors


def for_sdcpp(case):
    """Writes the pipeline for stable-diffusion.cpp, with a text encoder and a tiny decoder that are not timed."""
    import torch
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = WORK / "models" / "sdcpp"
    if not (folder / "tiny" / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "unet").exists():
            (folder / "unet").symlink_to(case.folder / "unet")
        # The text encoder of Stable Diffusion 1.5, CLIP ViT-L/14.
        text = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77, hidden_act="quick_gelu",
        )
        torch.manual_seed(3)
        weights = CLIPTextModel(text).state_dict()
        (folder / "text_encoder").mkdir(exist_ok=True)
        # Names in files begin with this prefix; those of the module depend on transformers' version.
        prefix = "" if any(name.startswith("text_model.") for name in weights) else "text_model."
        save_file({prefix + name: value.contiguous() for name, value in weights.items()},
                  folder / "text_encoder" / "model.safetensors")
        AutoencoderTiny().save_pretrained(folder / "tiny")
    return folder


def work(case):
    """(parameters, FLOPs of one call). A multiply-add of convolutions, linear layers and attention counts as two.

    Counts the direct algorithms, even if a contender uses others. Embeddings of tokens are not counted.
    """
    import torch
    from networks import KINDS, config_of
    from torch.utils.flop_counter import FlopCounterMode

    network = KINDS[case.kind](KINDS[case.kind].blank(config_of(case))).to("meta")
    inputs = [torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for tensor in inputs_of(case).values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    part = network.network.decoder if case.kind == "vae" else network.network
    return sum(parameter.numel() for parameter in part.parameters()), counter.get_total_flops()
