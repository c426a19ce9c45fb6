"""A small decoder in the manner of TAESD (Bohan, "Tiny AutoEncoder for Stable Diffusion", 2023; AutoencoderTiny in diffusers).

Without normalization and attention, and with few channels at every size, it decodes in a fraction of the time. The decoder reads
latents with some noise, which are similar to those of the U-Net. Its target is the mean of the full decoder's picture of these
latents and of the true picture. The small encoder learns the exact latents.
"""

import argparse
import time

import torch
from autoencoder import BATCH, Pictures, distance, psnr
from companions.base import COMPANIONS, TRAINING, Base, channels_last, half_products, save_model
from companions.loop import Loop, add_arguments
from diffusers import AutoencoderTiny
from latents import CHANNELS, Latents
from muon import Muon, split_parameters

NOISE = 0.1


def build(width):
    return AutoencoderTiny(
        latent_channels=CHANNELS, encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 0, 1, 1), num_decoder_blocks=(6, 4, 2, 1), scaling_factor=1.0,
    )  # fmt: skip


@torch.no_grad()
def measure(tiny, base, pictures, latents):
    """Prints how near the decoder is to the pictures and to the full decoder, and how fast it is."""
    for name, chosen in (("seen", pictures.seen()), ("unseen", pictures.unseen())):
        exact = latents.encode(chosen)
        full, small = base.vae.decode(exact).sample.clamp(-1, 1), tiny.decode(exact).sample.clamp(-1, 1)
        again = tiny.decode(tiny.encode(chosen).latents).sample.clamp(-1, 1)
        print(f"{name}: {psnr(chosen, small):.2f} dB, the full decoder {psnr(chosen, full):.2f}; to the full decoder {psnr(full, small):.2f}; there and back {psnr(chosen, again):.2f}")
    one = latents.encode(pictures.seen(1))
    for name, decode in (("full", base.vae.decode), ("tiny", tiny.decode)):
        start = time.process_time()
        for _ in range(20):
            decode(one)
        print(f"{name} decoder: {(time.process_time() - start) / 20 * 1000:.1f} CPU-milliseconds a picture, in float32")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TRAINING / "work", steps=1200, batch=BATCH)
    parser.add_argument("--output", type=type(COMPANIONS), default=COMPANIONS / "vae_tiny")
    parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    base, pictures = Base(), Pictures(arguments.work)
    latents = Latents.load(arguments.work / "latents.safetensors")
    model = build(arguments.width).to(memory_format=torch.channels_last)
    matrices, rest = split_parameters(model, exclude=("layers.0.",))
    optimisers = [Muon(matrices, lr=0.01), torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.99), weight_decay=0)]
    loop = Loop(model.parameters(), optimisers, arguments.work / "tiny.pt", arguments, decay=0.6, average=0.995)

    def loss(rng):
        pictures_ = pictures.crops(rng)
        if rng.random() < 0.5:
            pictures_ = pictures_.flip(3)
        exact = latents.encode(pictures_)
        noisy = exact + torch.randn_like(exact) * NOISE * torch.rand(len(exact), 1, 1, 1)
        with half_products():
            with torch.no_grad():
                wanted = base.vae.decode(channels_last(noisy)).sample.float()
            guess = model.decode(channels_last(noisy)).sample.float()
            found = model.encode(channels_last(pictures_)).latents.float()
        # The mean of the full decoder's picture and the true picture.
        wanted = (wanted + pictures_) / 2
        return distance(guess, wanted) + 0.3 * (found - exact).abs().mean()

    loop.run(loss)
    with loop.averaged():
        measure(model, base, pictures, latents)
        save_model(model, arguments.output)


if __name__ == "__main__":
    main()
