"""Low-rank adapters (LoRA; Hu et al., arXiv:2106.09685) of the U-Net, written as `load_lora_weights` of diffusers reads them.

In so small a network most weights are in convolutions, so these are adapted too: by a convolution to `rank` channels, and then a
1×1 convolution. Together they are a convolution whose weights are a product of two matrices. During the training this product is
added to the frozen weights, which costs less than computing both convolutions.
"""

import math

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj")
# How many times higher the learning rate of the second matrix is, because this matrix starts at zero (LoRA+; Hayou et al.,
# arXiv:2402.12354).
FASTER = 4


class LowRank(nn.Module):
    """A weight and the product of two matrices, the second of which starts at zero."""

    def __init__(self, weight, rank):
        super().__init__()
        points = [1] * (weight.ndim - 2)
        self.down = nn.Parameter(torch.empty(rank, *weight.shape[1:]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *points))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight):
        return weight + (self.up.flatten(1) @ self.down.flatten(1)).view_as(weight)


def add_adapter(unet, rank):
    """Adapters that change nothing yet. Their scale is one: no `alpha` is written."""
    targets = tuple(f".{name}" for name in ATTENTION + CONVOLUTIONS)
    for name, module in list(unet.named_modules()):
        if name.endswith(targets):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def optimiser_of(unet, rate):
    adapters = [module for module in unet.modules() if isinstance(module, LowRank)]
    groups = [{"params": [module.down for module in adapters], "lr": rate}, {"params": [module.up for module in adapters], "lr": rate * FASTER}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0)


def save_adapter(unet, folder):
    tensors = {}
    for name, module in unet.named_modules():
        if isinstance(module, LowRank):
            layer = name.removesuffix(".parametrizations.weight.0")
            tensors[f"unet.{layer}.lora_A.weight"] = module.down.detach().half().contiguous()
            tensors[f"unet.{layer}.lora_B.weight"] = module.up.detach().half().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pytorch_lora_weights.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
