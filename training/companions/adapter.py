"""Low-rank adapters (LoRA; Hu et al., arXiv:2106.09685) of the U-Net, written as `load_lora_weights` of diffusers reads them.

In so small a network most weights are in convolutions, so those are adapted too: a convolution to `rank` channels, then one of 1×1.
"""

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj"]
# The second matrix starts at zero and so lags behind: it learns faster (LoRA+; Hayou et al., arXiv:2402.12354).
FASTER = 4


def add_adapter(unet, rank):
    """Adapters that change nothing yet. Their scale is one: no `alpha` is written."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION + CONVOLUTIONS))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def optimiser_of(unet, rate):
    first = [parameter for name, parameter in unet.named_parameters() if "lora_A" in name]
    second = [parameter for name, parameter in unet.named_parameters() if "lora_B" in name]
    groups = [{"params": first, "lr": rate}, {"params": second, "lr": rate * FASTER}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0)


def save_adapter(unet, folder):
    tensors = {name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=tensors)
    file = folder / "pytorch_lora_weights.safetensors"
    file.chmod(0o644)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
