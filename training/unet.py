"""The U-Net: predicts v (Salimans & Ho, arXiv:2202.00512) in the latent space, guided by the text encoder's hidden states.

The noise schedule is the cosine of Nichol & Dhariwal (arXiv:2102.09672). A tenth of the samples has no caption, because
classifier-free guidance needs predictions without a prompt (Ho & Salimans, arXiv:2207.12598). Timesteps are stratified over the
batch, so that the loss is less noisy. The exported weights are an exponential moving average. The text states get some noise, so
that words whose states are near to those of a known word work as well.

Every batch has new scenes, which the number of the step determines. The learning rate is constant and falls only during the last
steps, so the number of steps can be decided late: stop at any time, and continue with `--resume --steps N` until step N.
With more free cores, `torchrun --nproc-per-node 2 unet.py …` divides each batch among processes, which use the mean of their
gradients.
"""

import argparse
import copy
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from captions import Captions
from data import SIZE
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from latents import CHANNELS, FACTOR, Latents, to_tensor
from muon import PRECISION, Muon, split_parameters
from scenes import Scenes
from text_encoder import WIDTH, encode_prompts
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
TIMESTEPS = 1000
EMPTY_SHARE = 0.1
WORD_DROPOUT = 0.1  # of the captions lose a word
TEXT_NOISE = 0.2  # the most, as a part of the spread of the text states
NOISY_FROM, NOISY_SHARE = 0.7, 0.66  # of the timesteps
AVERAGE = 0.995
CHECKPOINT_EVERY = 60


def build():
    # In this configuration `attention_head_dim` counts the heads (a misnomer of long standing): all are 32 wide.
    return UNet2DConditionModel(
        sample_size=SIZE // FACTOR, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(64, 128, 160), layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=[2, 4, 5], cross_attention_dim=WIDTH, norm_num_groups=16,
    )  # fmt: skip


def build_scheduler():
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing", steps_offset=1,
        algorithm_type="dpmsolver++", solver_order=2, lower_order_final=True,
    )  # fmt: skip


class Examples:
    """Scenes as latents, and their captions as text states."""

    def __init__(self, work):
        self.scenes, self.captions = Scenes(work), Captions()
        self.latents = Latents.load(work / "latents.safetensors")
        self.tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(work / "text_encoder", dtype=torch.float32).eval()
        self.empty = self.encode([""])[0]
        scenes = [self.scenes.draw(random.Random(i)) for i in range(256)]
        self.spread = self.encode([self.captions.caption(scene, random.Random(0)) for scene in scenes]).std((0, 1))

    def encode(self, captions):
        with torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16):
            return encode_prompts(self.encoder, self.tokenizer, captions).float()

    def batch(self, size, rng):
        scenes = [self.scenes.draw(rng) for _ in range(size)]
        captions = [drop_word(self.captions.caption(scene, rng), rng) for scene in scenes]
        states = self.encode(captions)
        states += torch.randn_like(states) * self.spread * TEXT_NOISE * torch.rand(size, 1, 1)
        states[torch.rand(size) < EMPTY_SHARE] = self.empty
        pictures = to_tensor(np.stack([self.scenes.picture(scene) for scene in scenes]))
        return self.latents.encode(pictures), states


def drop_word(caption, rng):
    """Sometimes leaves out a word of a long caption, so that the U-Net does not depend on single words."""
    words = caption.split()
    if len(words) > 3 and rng.random() < WORD_DROPOUT:
        del words[rng.randrange(len(words))]
    return " ".join(words)


def draw_timesteps(count):
    """Stratified timesteps. Two thirds are in the noisiest part, where only the words decide what is drawn; this takes longest to learn."""
    strata = (torch.randperm(count) + torch.rand(count)) / count
    quiet = strata / (1 - NOISY_SHARE) * NOISY_FROM
    noisy = NOISY_FROM + (strata - 1 + NOISY_SHARE) / NOISY_SHARE * (1 - NOISY_FROM)
    return (torch.where(strata < 1 - NOISY_SHARE, quiet, noisy) * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def share_gradients(parameters, processes):
    """The mean of all processes' gradients, in one message."""
    gradients = [parameter.grad for parameter in parameters]
    message = torch.cat([gradient.flatten() for gradient in gradients]) / processes
    dist.all_reduce(message)
    for gradient, part in zip(gradients, message.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view_as(gradient))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=6000, help="the last step")
    parser.add_argument("--decay", type=int, default=1500, help="over how many steps before the last the rate falls")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.02, help="of Muon; AdamW learns at a tenth of it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--from", dest="model", type=Path, help="start from the weights of this model folder")
    parser.add_argument("--compile", action="store_true", help="let torch.compile fuse operations (needs a C++ compiler)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    number, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        dist.init_process_group("gloo")
    batch = arguments.batch // processes

    examples = Examples(arguments.work)
    model = UNet2DConditionModel.from_pretrained(arguments.model / "unet", dtype=torch.float32) if arguments.model else build()
    model = model.train().to(memory_format=torch.channels_last)
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
    predict = torch.compile(model) if arguments.compile else model
    signal = build_scheduler().alphas_cumprod
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(examples.scenes.pictures)} pictures", flush=True)

    losses, start = [], time.process_time()
    for step in range(first, arguments.steps):
        rate = min(1, (step - first + 1) / 40, 0.02 + (arguments.steps - step) / arguments.decay)
        muon.param_groups[0]["lr"] = arguments.rate * rate
        adam.param_groups[0]["lr"] = arguments.rate / 10 * rate

        rng = random.Random(step * processes + number)
        torch.manual_seed(step * processes + number)
        latents, states = examples.batch(batch, rng)
        timesteps = draw_timesteps(batch)
        level = signal[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
        velocity = level.sqrt() * noise - (1 - level).sqrt() * latents
        with torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16):
            guess = predict(noisy.contiguous(memory_format=torch.channels_last), timesteps, states).sample
        errors = (guess.float() - velocity).square().mean((1, 2, 3))
        # The weight between that of v and that of the clean latents (which is the signal's share of the noisy ones).
        loss = (errors * (1 - level.flatten()).sqrt()).mean()

        model.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            share_gradients(list(model.parameters()), processes)
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - min(AVERAGE, (step + 1) / (step + 16)))
        losses.append(loss.item())
        if number == 0 and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == arguments.steps):
            cpu = spent + (time.process_time() - start) * processes
            speed = (step + 1 - first) * batch / (time.process_time() - start)
            line = f"step {step + 1} samples {(step + 1) * arguments.batch} loss {np.mean(losses[-CHECKPOINT_EVERY:]):.4f}"
            print(f"{line}, rate {rate:.2f}, {speed:.0f} samples per CPU-second, {cpu / 60:.1f} CPU-minutes", flush=True)
            state = {"model": model.state_dict(), "average": average.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
            torch.save({**state, "step": step + 1, "cpu": cpu}, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
            average.save_pretrained(arguments.work / "unet")


if __name__ == "__main__":
    main()
