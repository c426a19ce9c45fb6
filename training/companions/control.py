"""The ControlNet for edges (Zhang et al., arXiv:2302.05543): a copy of the U-Net's first half that reads a picture of edges.

Its outputs, which are zero at first, are added to the results that the frozen U-Net keeps for its second half. A quarter of the
samples has no caption, so that the ControlNet learns to recognize things by their edges.
"""

import argparse

import numpy as np
import torch
from companions.base import COMPANIONS, TRAINING, Base, channels_last, half_products, save_model
from companions.edges import canny
from companions.loop import Loop, add_arguments
from companions.placed import Placed
from diffusers import ControlNetModel
from latents import Latents, to_tensor
from muon import Muon, split_parameters
from unet import draw_timesteps

EMPTY_SHARE = 0.25
EDGE_WIDTHS = (16, 32, 64, 96)  # widths of the convolutions that reduce the picture of edges to the size of the latents


def edges_of(pictures):
    """(B, H, W, 3) bytes → (B, 3, H, W) of zeros and ones, as pipelines hand them over."""
    edges = np.stack([canny(picture) for picture in pictures])
    return torch.from_numpy(edges).float().div(255)[:, None].expand(-1, 3, -1, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TRAINING / "work", steps=450, batch=24)
    parser.add_argument("--output", type=type(COMPANIONS), default=COMPANIONS / "controlnet-canny")
    parser.add_argument("--rate", type=float, default=0.01, help="of Muon; AdamW learns at a tenth of it")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    base, placed = Base(), Placed(arguments.work)
    latents = Latents.load(arguments.work / "latents.safetensors")
    model = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=EDGE_WIDTHS).requires_grad_(True).to(memory_format=torch.channels_last)
    matrices, rest = split_parameters(model, exclude=("time_emb", "controlnet_cond_embedding.conv_in"))
    optimisers = [Muon(matrices, lr=arguments.rate, weight_decay=0.02), torch.optim.AdamW(rest, lr=arguments.rate / 10, betas=(0.9, 0.98), weight_decay=0)]
    loop = Loop(model.parameters(), optimisers, arguments.work / "control.pt", arguments)

    def loss(rng):
        pictures, captions = zip(*(placed.draw(rng) for _ in range(arguments.batch)))
        states = base.encode(list(captions))
        states[torch.rand(len(states)) < EMPTY_SHARE] = base.empty
        clean, edges = latents.encode(to_tensor(np.stack(pictures))), edges_of(pictures)
        timesteps, noise = draw_timesteps(len(clean)), torch.randn_like(clean)
        noisy = channels_last(base.noised(clean, noise, timesteps))
        with half_products():
            down, middle = model(noisy, timesteps, states, channels_last(edges), return_dict=False)
        guess = base.predict(noisy, timesteps, states, down_block_additional_residuals=down, mid_block_additional_residual=middle)
        errors = (guess - base.velocity(clean, noise, timesteps)).square().mean((1, 2, 3))
        return (errors * base.levels(timesteps)[1].flatten()).mean()

    loop.run(loss)
    with loop.averaged():
        save_model(model, arguments.output)


if __name__ == "__main__":
    main()
