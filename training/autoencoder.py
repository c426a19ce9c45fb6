"""The autoencoder: an AutoencoderKL whose decoder learns to invert the fixed latents of `latents.py`.

The encoder learns to produce these latents. This regression is easy, so only every fourth step trains the encoder.
The first 70 % of the steps use crops of a quarter of the picture, which cost a quarter of the time; the other steps use whole
pictures. A little noise on the latents makes the decoder tolerate the U-Net's errors. The loss is the sum of the absolute error,
the squared error, and the absolute error of the differences between neighboring pixels, which keeps edges sharp (Mathieu et al.,
arXiv:1511.05440).
"""

import argparse
import copy
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from data import SIZE
from latents import CHANNELS, FACTOR, Latents, to_tensor
from muon import PRECISION, Muon, split_parameters
from scenes import LAYOUTS, Scenes, compose

HERE = Path(__file__).parent
WIDTHS = (16, 24, 48, 80)
BATCH = 8  # crops in a batch; a batch of whole pictures has half as many
CROPS_SHARE = 0.7  # of the steps
OTHERS_SHARE = 0.4  # the share of pictures that the U-Net does not learn
HELD_EVERY = 20  # every 20th of these pictures is not trained on but used to measure


def build():
    levels = len(WIDTHS)
    model = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=CHANNELS, block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels, sample_size=SIZE, scaling_factor=1.0,
    )  # fmt: skip
    # Encoder and decoder use the normalized latents themselves, so the two 1×1 convolutions between them change nothing.
    identity = torch.eye(CHANNELS)[:, :, None, None]
    with torch.no_grad():
        for convolution in (model.quant_conv, model.post_quant_conv):
            convolution.weight.zero_()
            convolution.bias.zero_()
            convolution.weight[:CHANNELS, :CHANNELS] = identity
        model.quant_conv.bias[CHANNELS:] = -8  # the log-variance: almost no spread
    model.quant_conv.requires_grad_(False)
    model.post_quant_conv.requires_grad_(False)
    return model


class Pictures:
    """Scenes of the concepts, and the other emoji on white. Some of the other emoji are not used for training."""

    def __init__(self, work):
        rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
        others = [i for i, row in enumerate(rows) if row["kind"] == "other"]
        self.pictures = np.load(work / "pictures.npy", mmap_mode="r")
        self.held = others[::HELD_EVERY]
        self.others = sorted(set(others) - set(self.held))
        self.scenes = Scenes(work)

    def other(self, i):
        return compose([np.array(self.pictures[i])], LAYOUTS["whole"].boxes)

    def draw(self, rng):
        return self.other(rng.choice(self.others)) if rng.random() < OTHERS_SHARE else self.scenes.picture(self.scenes.draw(rng))

    def whole(self, rng, count):
        return to_tensor(np.stack([self.draw(rng) for _ in range(count)]))

    def crops(self, rng):
        side = SIZE // 2
        places = [(rng.randrange(0, side + 1, FACTOR), rng.randrange(0, side + 1, FACTOR)) for _ in range(BATCH)]
        return to_tensor(np.stack([self.draw(rng)[y : y + side, x : x + side] for x, y in places]))

    def seen(self, count=64):
        rng = random.Random(0)
        return to_tensor(np.stack([self.scenes.picture(self.scenes.draw(rng)) for _ in range(count)]))

    def unseen(self, count=64):
        return to_tensor(np.stack([self.other(i) for i in self.held[:count]]))


def differences(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def distance(x, y):
    edges = sum((a - b).abs().mean() for a, b in zip(differences(x), differences(y)))
    return (x - y).abs().mean() + (x - y).square().mean() + 0.4 * edges


def psnr(x, y):
    return (10 * torch.log10(4 / (x - y).square().mean((1, 2, 3)))).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    work = arguments.work
    pictures = Pictures(work)
    latents = Latents.load(work / "latents.safetensors")

    model = build().to(memory_format=torch.channels_last)
    decoder, decoder_rest = split_parameters(model.decoder, exclude=("conv_out",))
    encoder, encoder_rest = split_parameters(model.encoder, exclude=("conv_in", "conv_out"))
    adam = torch.optim.AdamW(decoder_rest + encoder_rest, lr=3e-3, betas=(0.9, 0.99), weight_decay=0)
    muons = [Muon(decoder), Muon(encoder)]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    first, spent = 0, 0.0
    checkpoint = work / "autoencoder.pt"
    if arguments.resume:
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, saved in zip((adam, *muons), state["optimisers"]):
            optimiser.load_state_dict(saved)
        first, spent = state["step"], state["cpu"]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, decoder {sum(p.numel() for p in model.decoder.parameters()) / 1e6:.2f} M", flush=True)

    seen, unseen = pictures.seen(), pictures.unseen()
    start = time.process_time()
    for step in range(first, arguments.steps):
        progress = step / arguments.steps
        rate = min(1, (step - first + 1) / 20) * (1 if progress < 0.4 else 1 - 0.97 * (progress - 0.4) / 0.6)
        adam.param_groups[0]["lr"] = 3e-3 * rate
        for muon in muons:
            muon.param_groups[0]["lr"] = 0.02 * rate
        rng = random.Random(step)
        torch.manual_seed(step)
        x = pictures.crops(rng) if progress < CROPS_SHARE else pictures.whole(rng, BATCH // 2)
        if rng.random() < 0.5:
            x = x.flip(3)
        z = latents.encode(x).contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        with_encoder = step % 4 == 3
        with torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16):
            guess = model.decoder(z + torch.randn_like(z) * 0.07 * rng.random()).float()
            z_guess = model.encoder(x)[:, :CHANNELS].float() if with_encoder else None
        loss = distance(x, guess)
        if with_encoder:
            loss = loss + (z_guess - z).abs().mean() + (z_guess - z).square().mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder_rest + encoder_rest, 1.0)
        adam.step()
        muons[0].step()
        if with_encoder:
            muons[1].step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - min(0.998, (step + 1) / (step + 21)))
        if (step + 1) % 200 == 0 or step + 1 == arguments.steps:
            with torch.no_grad():
                figures = []
                for pictures_ in (seen, unseen):
                    figures.append(psnr(pictures_, average.decode(latents.encode(pictures_)).sample.clamp(-1, 1)))
                    figures.append(psnr(pictures_, average.decode(average.encode(pictures_).latent_dist.mode()).sample.clamp(-1, 1)))
            cpu = spent + time.process_time() - start
            print(
                f"step {step + 1} loss {loss.item():.4f}; decoder alone {figures[0]:.2f} dB, unseen {figures[2]:.2f}; "
                f"with encoder {figures[1]:.2f}, unseen {figures[3]:.2f}; {cpu / 60:.1f} CPU-minutes",
                flush=True,
            )
            optimisers = [optimiser.state_dict() for optimiser in (adam, *muons)]
            torch.save({"model": model.state_dict(), "average": average.state_dict(), "optimisers": optimisers, "step": step + 1, "cpu": cpu}, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
            average.save_pretrained(work / "vae")


if __name__ == "__main__":
    main()
