"""The U-Net: predicts v (Salimans & Ho, arXiv:2202.00512) in the latent space, guided by the text encoder's hidden states.

The noise schedule is the cosine of Nichol & Dhariwal (arXiv:2102.09672). A tenth of the captions is left out, which is what
classifier-free guidance needs (Ho & Salimans, arXiv:2207.12598). Timesteps are stratified over the batch, so that the loss is
less noisy; the weights that ship are an exponential moving average. Training counts steps and saves all its state, so it can be
stopped at any time and gone on with.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from latents import CHANNELS, Latents
from muon import Muon, split_parameters
from text_encoder import WIDTH, encode_prompts
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
TIMESTEPS = 1000
EMPTY_SHARE = 0.1
AVERAGE = 0.998


def build():
    # In this configuration `attention_head_dim` counts the heads (a misnomer of long standing): 2 and 4 heads, both 32 wide.
    return UNet2DConditionModel(
        sample_size=8, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=[2, 4], cross_attention_dim=WIDTH, norm_num_groups=16,
    )  # fmt: skip


def build_scheduler():
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing", steps_offset=1,
        algorithm_type="dpmsolver++", solver_order=2, lower_order_final=True,
    )  # fmt: skip


class Examples:
    """Latents and text states of every picture that has captions, all in memory."""

    def __init__(self, work):
        all_rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
        chosen = [i for i, row in enumerate(all_rows) if row["captions"]]
        rows = [all_rows[i] for i in chosen]
        pictures = torch.from_numpy(np.load(work / "pictures.npy")[chosen]).float().permute(0, 3, 1, 2) / 127.5 - 1
        self.latents = Latents.load(work / "latents.pt").encode(pictures)
        weights = np.array([row["weight"] for row in rows])
        self.shares = weights / weights.sum()

        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
        numbers = {caption: i for i, caption in enumerate(sorted({caption for row in rows for caption in row["captions"]}))}
        self.captions = np.array([[numbers[caption] for caption in row["captions"]] for row in rows])
        self.states = encode_prompts(encoder, tokenizer, list(numbers))
        self.empty = encode_prompts(encoder, tokenizer, [""])[0]

    def batch(self, size, rng):
        chosen = rng.choice(len(self.shares), size, p=self.shares)
        captions = self.captions[chosen, rng.integers(self.captions.shape[1], size=size)]
        states = self.states[torch.from_numpy(captions)]
        states[torch.from_numpy(rng.random(size) < EMPTY_SHARE)] = self.empty
        return self.latents[chosen], states.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=3100, help="length of the learning-rate schedule")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.02, help="of Muon; AdamW learns at a tenth of it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    start = time.process_time()
    examples = Examples(arguments.work)
    model = build().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    matrices, rest = split_parameters(model, exclude=("conv_in", "conv_out", "time_emb"))
    muon, adam = Muon(matrices, weight_decay=0.02), torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0)
    first, spent = 0, 0.0
    checkpoint = arguments.work / "unet.pt"
    if arguments.resume:
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        first, spent = state["step"], state["cpu"]
        torch.manual_seed(first)
    rng = np.random.default_rng(first)
    signal = build_scheduler().alphas_cumprod
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(examples.shares)} pictures, {len(examples.states)} captions", flush=True)
    print(f"prepared in {(time.process_time() - start) / 60:.1f} CPU-minutes", flush=True)

    losses, start = [], time.process_time()
    for step in range(first, arguments.steps):
        progress = step / arguments.steps
        rate = min(1, (step - first + 1) / 40) * (1 if progress < 0.5 else 1 - 0.98 * (progress - 0.5) / 0.5)
        muon.param_groups[0]["lr"] = arguments.rate * rate
        adam.param_groups[0]["lr"] = arguments.rate / 10 * rate

        latents, states = examples.batch(arguments.batch, rng)
        strata = (rng.permutation(arguments.batch) + rng.random(arguments.batch)) / arguments.batch
        timesteps = torch.from_numpy((strata * TIMESTEPS).astype(np.int64))
        level = signal[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
        velocity = level.sqrt() * noise - (1 - level).sqrt() * latents
        guess = model(noisy.contiguous(memory_format=torch.channels_last), timesteps, states).sample
        loss = (guess - velocity).square().mean()

        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - min(AVERAGE, (step + 1) / (step + 16)))
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == arguments.steps:
            cpu = spent + time.process_time() - start
            rate = (step + 1 - first) * arguments.batch / (time.process_time() - start)
            print(f"step {step + 1} samples {(step + 1) * arguments.batch} v-loss {np.mean(losses[-100:]):.4f}, {rate:.0f} samples/s, {cpu / 60:.1f} CPU-minutes", flush=True)
            state = {"model": model.state_dict(), "average": average.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
            torch.save({**state, "step": step + 1, "cpu": cpu}, checkpoint)
            average.save_pretrained(arguments.work / "unet")


if __name__ == "__main__":
    main()
