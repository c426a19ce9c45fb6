"""The base model for the training of add-ons: frozen, in full precision, with its inputs and outputs.

It is read from its model folder, as for any add-on. From the work folder only the pictures are used, and the closed-form latents,
which are more exact than those of the encoder.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.utils import logging
from export import tidy_config
from muon import PRECISION
from transformers import CLIPTextModel, CLIPTokenizer

TRAINING = Path(__file__).parent.parent
MODEL = TRAINING.parent / "models" / "emoji"
COMPANIONS = TRAINING.parent / "models" / "emoji-companions"
logging.set_verbosity_error()


def half_products():
    """Matrix products in bfloat16, where the processor has instructions for it."""
    return torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16)


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def save_model(model, folder):
    """Saves a model in half precision, without the path from which it was loaded."""
    model.half().save_pretrained(folder)
    tidy_config(folder / "config.json")
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.chmod(0o644)
    print(f"{weights}: {weights.stat().st_size / 1e6:.2f} MB")


class Base:
    def __init__(self, folder=MODEL):
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval().requires_grad_(False)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32).eval().requires_grad_(False)
        self.unet = unet.to(memory_format=torch.channels_last)
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval().requires_grad_(False)
        self.signal = DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler").alphas_cumprod
        self.empty = self.encode([""])[0]

    def encode(self, captions):
        """Texts → (B, 32, 192), the hidden states that the U-Net attends to."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with half_products(), torch.no_grad():
            return self.encoder(ids).last_hidden_state.float()

    def levels(self, timesteps):
        """Timesteps (B,) → the share of the signal and of the noise, each (B, 1, 1, 1): roots of two numbers that add up to one."""
        level = self.signal[timesteps].view(-1, 1, 1, 1)
        return level.sqrt(), (1 - level).sqrt()

    def noised(self, latents, noise, timesteps):
        signal, spread = self.levels(timesteps)
        return signal * latents + spread * noise

    def velocity(self, latents, noise, timesteps):
        """The correct output (v) of the U-Net for `noised` (Salimans & Ho, arXiv:2202.00512)."""
        signal, spread = self.levels(timesteps)
        return signal * noise - spread * latents

    def predict(self, noisy, timesteps, states, **more):
        with half_products():
            return self.unet(channels_last(noisy), timesteps, states, **more).sample.float()

    def clean(self, noisy, timesteps, states, **more):
        """The U-Net's estimate of the clean latents."""
        signal, spread = self.levels(timesteps)
        return signal * noisy - spread * self.predict(noisy, timesteps, states, **more)
