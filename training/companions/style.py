"""A LoRA for one of the styles of `styles.py`: the training of the U-Net continues with its objective, but only in the LoRA.

The samples are scenes in the style, with all things and their recolored copies.
"""

import argparse

import numpy as np
import torch
from companions.adapter import add_adapter, optimiser_of, save_adapter
from companions.base import COMPANIONS, TRAINING, Base
from companions.loop import Loop, add_arguments
from companions.styles import STYLES, StyleCaptions, folder_of
from latents import Latents, to_tensor
from scenes import Scenes
from unet import draw_timesteps, drop_word

EMPTY_SHARE = 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("style", choices=STYLES)
    add_arguments(parser, TRAINING / "work", steps=200, batch=32)
    parser.add_argument("--output", type=type(COMPANIONS), default=COMPANIONS)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    style = arguments.style
    base, captions, scenes = Base(), StyleCaptions(), Scenes(folder_of(arguments.work, style))
    latents = Latents.load(arguments.work / "latents.safetensors")
    parameters = add_adapter(base.unet, arguments.rank)
    loop = Loop(parameters, [optimiser_of(base.unet, arguments.rate)], arguments.work / f"style-{style}.pt", arguments)

    def loss(rng):
        drawn = [scenes.draw(rng, style) for _ in range(arguments.batch)]
        states = base.encode([drop_word(captions.caption(scene, rng), rng) for scene in drawn])
        states[torch.rand(len(drawn)) < EMPTY_SHARE] = base.empty
        clean = latents.encode(to_tensor(np.stack([scenes.picture(scene) for scene in drawn])))
        timesteps, noise = draw_timesteps(len(drawn)), torch.randn_like(clean)
        guess = base.predict(base.noised(clean, noise, timesteps), timesteps, states)
        errors = (guess - base.velocity(clean, noise, timesteps)).square().mean((1, 2, 3))
        return (errors * base.levels(timesteps)[1].flatten()).mean()

    loop.run(loss)
    with loop.averaged():
        save_adapter(base.unet, arguments.output / f"{style}-lora")


if __name__ == "__main__":
    main()
