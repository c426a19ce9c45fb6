"""The LCM-LoRA (Luo et al., arXiv:2311.05556): with it, diffusers' LCMScheduler draws in four steps, without guidance.

At any point of a trajectory of `trajectories.py`, it learns to predict the end. The trajectories were computed with guidance scale
3, so drawing with this LoRA needs no guidance. The loss is the pseudo-Huber distance of consistency models (Song & Dhariwal,
arXiv:2310.14189), in which the small errors of late points weigh as much as the large errors of early points.
"""

import argparse

from companions.adapter import add_adapter, optimiser_of, save_adapter
from companions.base import COMPANIONS, TRAINING, Base
from companions.loop import Loop, add_arguments
from companions.trajectories import Trajectories

FIRST_SHARE = 0.2  # the share of points that are pure noise, with which every drawing starts
SMALL = 0.05


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TRAINING / "work", steps=600, batch=32)
    parser.add_argument("--output", type=type(COMPANIONS), default=COMPANIONS / "lcm-lora")
    parser.add_argument("--rank", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    base, ways = Base(), Trajectories(arguments.work)
    parameters = add_adapter(base.unet, arguments.rank)
    loop = Loop(parameters, [optimiser_of(base.unet, arguments.rate)], arguments.work / "lcm.pt", arguments)

    def loss(rng):
        points, timesteps, states, ends = ways.batch(arguments.batch, rng, FIRST_SHARE)
        errors = (base.clean(points, timesteps, states) - ends).square().mean((1, 2, 3))
        return ((errors + SMALL**2).sqrt() - SMALL).mean()

    loop.run(loss)
    with loop.averaged():
        save_adapter(base.unet, arguments.output)


if __name__ == "__main__":
    main()
