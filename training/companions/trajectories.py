"""Trajectories from noise to pictures, computed with the base model and guidance. The LCM-LoRA learns from them.

At any point of a trajectory, a latent consistency model (Luo et al., arXiv:2310.04378) predicts the end. Its usual target is its own
prediction at the next point, which becomes good only after many steps of training. The base model is so small that whole
trajectories can be computed, as Luhman & Luhman do (arXiv:2101.02388): the target is the end itself, for all points.

A trajectory is computed by DPM-Solver++ (2M) (Lu et al., arXiv:2211.01095) with guidance scale 3, over a third of the fifty
timesteps of diffusers' LCMScheduler, chosen again for each batch. Between its steps, this scheduler adds noise to the prediction
again. Therefore every other batch starts in this way: from the ends of the batch before, with new noise at some timestep.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from captions import Captions
from companions.base import TRAINING, Base
from safetensors.torch import load_file, save_file
from scenes import Scenes
from unet import drop_word

BATCH = 64
GUIDANCE = 3.0
GRID = torch.arange(19, 1000, 20)  # the timesteps of LCMScheduler with its 50 original steps
STRIDE = 3
EMPTY_SHARE = 0.05  # the share of trajectories without text, so that some guidance is still possible


def draw_schedule(rng, last):
    """Descending timesteps from GRID[last], one out of every three."""
    below = [rng.randrange(start, min(start + STRIDE, last)) for start in range(0, last, STRIDE)]
    return GRID[[last, *reversed(below)]]


@torch.no_grad()
def walk(base, noisy, timesteps, states):
    """(B, C, H, W) at the first timestep → the points at all timesteps (B, T, C, H, W), and the end (B, C, H, W)."""
    both = torch.cat([base.empty.expand_as(states), states])
    signals, spreads = base.signal[timesteps].sqrt(), (1 - base.signal[timesteps]).sqrt()
    ratios = (signals / spreads).log()
    points, before = [], None
    for i, timestep in enumerate(timesteps):
        points.append(noisy)
        without, with_text = base.clean(noisy.repeat(2, 1, 1, 1), timestep.expand(2 * len(noisy)), both).chunk(2)
        clean = without + GUIDANCE * (with_text - without)
        if i + 1 == len(timesteps):
            return torch.stack(points, 1), clean
        step = ratios[i + 1] - ratios[i]
        ahead = clean
        if before is not None:
            ahead = clean + (clean - before) * step / (2 * (ratios[i] - ratios[i - 1]))
        noisy = spreads[i + 1] / spreads[i] * noisy - signals[i + 1] * torch.expm1(-step) * ahead
        before = clean


class Trajectories:
    """The computed trajectories, as pairs of points and ends."""

    def __init__(self, work):
        files = sorted((work / "trajectories").glob("*.safetensors"))
        self.batches = [load_file(file) for file in files]

    def __len__(self):
        return len(self.batches)

    def batch(self, size, rng, first_share):
        """(points, timesteps, states, ends) of `size` pairs, from random trajectories. In a share of `first_share`, the points are pure noise."""
        chosen = []
        for _ in range(size):
            # The batches with even numbers start from pure noise.
            start = rng.random() < first_share
            ways = self.batches[rng.randrange(0, len(self) - 1, 2) if start else rng.randrange(len(self))]
            way, point = rng.randrange(BATCH), 0 if start else rng.randrange(len(ways["timesteps"]))
            chosen.append((ways["points"][way, point], ways["timesteps"][point], ways["states"][way], ways["ends"][way]))
        points, timesteps, states, ends = (torch.stack(column) for column in zip(*chosen))
        return points.float(), timesteps, states.float(), ends.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    parser.add_argument("--batches", type=int, default=40, help=f"of {BATCH} ways; those that are there already are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.work / "trajectories"
    folder.mkdir(exist_ok=True)

    base, scenes, captions = Base(), Scenes(arguments.work), Captions()
    states = ends = None
    start = time.process_time()
    for number in range(arguments.batches):
        file = folder / f"{number:04}.safetensors"
        if file.exists():
            ways = load_file(file)
            states, ends = ways["states"].float(), ways["ends"].float()
            continue
        rng = random.Random(number)
        torch.manual_seed(number)
        noise = torch.randn(BATCH, base.unet.config.in_channels, 16, 16)
        if number % 2 == 0:
            states = base.encode([drop_word(captions.caption(scenes.draw(rng), rng), rng) for _ in range(BATCH)])
            states[torch.rand(BATCH) < EMPTY_SHARE] = base.empty
            timesteps = draw_schedule(rng, len(GRID) - 1)
            noisy = noise
        else:
            timesteps = draw_schedule(rng, rng.randrange(5, len(GRID) - 3))
            noisy = base.noised(ends, noise, timesteps[:1].expand(BATCH))
        points, ends = walk(base, noisy, timesteps, states)
        tensors = {"points": points.half(), "timesteps": timesteps, "states": states.half(), "ends": ends.half()}
        save_file(tensors, file.with_suffix(".new"))
        file.with_suffix(".new").rename(file)
        print(f"batch {number + 1}: {len(timesteps)} points each, {(time.process_time() - start) / 60:.1f} CPU-minutes", flush=True)


if __name__ == "__main__":
    main()
