"""The latent space: principal components of 8×8-pixel blocks, 16 of 192 numbers.

A latent space is usually learned together with its autoencoder (Rombach et al., arXiv:2112.10752). At this size a latent space in
closed form is as good. It is computed in seconds, so that the U-Net can be trained while the decoder still learns to invert it.
Each component is divided by the root of its standard deviation. The first components therefore remain the largest, because their
errors are the most visible. Then all components are divided by one number, so that all numbers together have variance 1 and the
VAE's `scaling_factor` is 1.
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
CHANNELS = 16
FACTOR = 8
# Neighboring blocks are similar, so a picture of many blocks can be recognized under more noise. Its latents are therefore scaled
# down relative to the noise (Chen, arXiv:2301.10972).
SPREAD = 0.7


@dataclass
class Latents:
    mean: torch.Tensor  # (192,), the mean block
    basis: torch.Tensor  # (192, CHANNELS)
    offset: torch.Tensor  # (CHANNELS,)
    scale: torch.Tensor  # (CHANNELS,)

    def encode(self, pictures):
        """(B, 3, H, W) in [-1, 1] → (B, CHANNELS, H/8, W/8)."""
        latents = ((blocks(pictures) - self.mean) @ self.basis - self.offset) * self.scale
        return latents.mT.reshape(len(pictures), CHANNELS, pictures.shape[2] // FACTOR, pictures.shape[3] // FACTOR)

    def decode(self, latents):
        """The best linear estimate of the picture. The learned decoder is better."""
        size = latents.shape[2] * FACTOR, latents.shape[3] * FACTOR
        flat = (latents.flatten(2).mT / self.scale + self.offset) @ self.basis.mT + self.mean
        return F.fold(flat.mT, size, FACTOR, stride=FACTOR)

    def save(self, path):
        save_file({name: tensor.contiguous() for name, tensor in vars(self).items()}, path)

    @classmethod
    def load(cls, path):
        return cls(**load_file(path))


def to_tensor(pictures):
    """(B, H, W, 3) bytes → (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).float().permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def blocks(pictures):
    """(B, 3, H, W) → (B, H/8 · W/8, 192)."""
    return F.unfold(pictures.contiguous(), FACTOR, stride=FACTOR).mT


def fit(pictures, important):
    """Computes the components from all `pictures`, and the normalization from `important`, the pictures that the U-Net learns."""
    flat = blocks(pictures).reshape(-1, 3 * FACTOR**2)
    mean = flat.mean(0)
    flat = flat - mean
    _, vectors = torch.linalg.eigh(flat.T @ flat)
    basis = vectors[:, -CHANNELS:].flip(1)
    components = (blocks(important) - mean).reshape(-1, 3 * FACTOR**2) @ basis
    offset, scale = components.mean(0), components.std(0).rsqrt()
    scale = SPREAD * scale / ((components - offset) * scale).std()
    residual = flat - flat @ basis @ basis.T
    print(f"principal components alone: {10 * torch.log10(4 / residual.square().mean()).item():.2f} dB")
    return Latents(mean, basis, offset, scale)


def main():
    from scenes import Scenes, compose, LAYOUTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work
    rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    others = [compose([pictures[i]], LAYOUTS["whole"].boxes) for i, row in enumerate(rows) if row["kind"] == "other"]
    scenes, rng = Scenes(work), random.Random(0)
    drawn = [scenes.picture(scenes.draw(rng)) for _ in range(3000)]
    fit(to_tensor(np.stack(others + drawn)), to_tensor(np.stack(drawn))).save(work / "latents.safetensors")


if __name__ == "__main__":
    main()
