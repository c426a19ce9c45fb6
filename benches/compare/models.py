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


@dataclass(frozen=True)
class Case:
    """One network with one size and batch."""

    group: str
    kind: str  # "unet", or "vae" for a decoder.
    folder: Path  # Contains unet/ or vae/.
    config: dict | None  # None if the weights are part of the repository.
    channels: int
    side: int  # Height and width of the latents.
    batch: int
    tokens: int = 0
    width: int = 0  # Width of a token's hidden state.

    @property
    def name(self):
        return self.group if self.kind == "vae" or self.group == "unet-sd15" else f"{self.group}-b{self.batch}"

    @property
    def inputs(self):
        return WORK / "inputs" / f"{self.name}.safetensors"

    @property
    def reference(self):
        """The file with PyTorch's output for the inputs."""
        return WORK / "references" / f"{self.name}.safetensors"

    @property
    def large(self):
        return self.group in ("unet-sd15", "vae")


def cases(batches):
    made, embedded = WORK / "models", ROOT / "models" / "emoji"
    text = json.loads((embedded / "text_encoder" / "config.json").read_text())
    unet = json.loads((embedded / "unet" / "config.json").read_text())
    small = dict(kind="unet", folder=made / "small", config=SMALL_UNET, channels=4, tokens=77, width=192)
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
    ]


def make(case):
    """Writes the weights and the inputs of a case if they do not exist."""
    import torch
    from safetensors.torch import save_file

    stamp = case.folder / case.kind / "made-of.json"
    made_of = json.dumps(case.config, sort_keys=True)
    if case.config is not None and not (stamp.exists() and stamp.read_text() == made_of):
        model = blank(case).to_empty(device="cpu")
        fill(model)
        model.save_pretrained(case.folder / case.kind)
        stamp.write_text(made_of)
        case.reference.unlink(missing_ok=True)
    if not case.inputs.exists():
        case.inputs.parent.mkdir(parents=True, exist_ok=True)
        random = torch.Generator().manual_seed(2)
        tensors = {"sample": torch.randn(case.batch, case.channels, case.side, case.side, generator=random)}
        if case.kind == "unet":
            tensors["text"] = torch.randn(case.batch, case.tokens, case.width, generator=random)
            tensors["t"] = torch.full((case.batch,), 501.0)  # candle-transformers takes one time for all rows.
        save_file(tensors, case.inputs)


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


def blank(case):
    """The network on the meta device, without memory for its weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    of_kind = UNet2DConditionModel if case.kind == "unet" else AutoencoderKL
    config = case.config or of_kind.load_config(case.folder / case.kind)
    with torch.device("meta"):
        return of_kind.from_config(config) if case.config is None else of_kind(**config)


def fill(model):
    """Fills in random weights that keep the variance from layer to layer. No bias is zero; no norm is the identity."""
    import torch

    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=random)
            else:
                is_scale = "norm" in name and name.endswith("weight")
                parameter.normal_(1.0 if is_scale else 0.0, 0.1, generator=random)


def work(case):
    """(parameters, FLOPs of one call). A multiply-add of convolutions, linear layers and attention counts as two.

    Counts the direct algorithms, even if a contender uses others.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = blank(case)
    sample = torch.empty(case.batch, case.channels, case.side, case.side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if case.kind == "unet":
            t = torch.empty(case.batch, device="meta")
            model(sample, t, torch.empty(case.batch, case.tokens, case.width, device="meta"))
            part = model
        else:
            model.decode(sample)
            part = model.decoder
    return sum(parameter.numel() for parameter in part.parameters()), counter.get_total_flops()


def load(case_kind, folder):
    """Loads the network with diffusers, for PyTorch and for conversion to other formats."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    of_kind = UNet2DConditionModel if case_kind == "unet" else AutoencoderKL
    return of_kind.from_pretrained(Path(folder) / case_kind).eval().requires_grad_(False)
