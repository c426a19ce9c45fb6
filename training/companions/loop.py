"""The training loop of all add-ons. The number of the step is the seed, and training can continue from its checkpoint.

The learning rate rises during the first steps and falls during the last ones. The saved parameters are an exponential moving
average.
"""

import os
import random
import time
from contextlib import contextmanager

import numpy as np
import torch

CHECKPOINT_EVERY = 50
WARM_UP = 20


def add_arguments(parser, work, steps, batch):
    parser.add_argument("--work", type=type(work), default=work)
    parser.add_argument("--steps", type=int, default=steps, help="the last step")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


class Loop:
    def __init__(self, parameters, optimisers, checkpoint, arguments, decay=0.5, average=0.99):
        """`decay` is the part of all steps over which the rate falls, `average` the weight of the past in the moving average."""
        self.parameters, self.optimisers, self.checkpoint = list(parameters), optimisers, checkpoint
        self.steps, self.batch, self.decay, self.weight = arguments.steps, arguments.batch, decay, average
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
        self.first, self.spent = 0, 0.0
        if arguments.resume and checkpoint.exists():
            self.restore(torch.load(checkpoint))
        print(f"{sum(parameter.numel() for parameter in self.parameters) / 1e6:.3f} M parameters learn", flush=True)

    def run(self, loss):
        """`loss(rng)` draws a batch and returns the mean loss over it."""
        losses, start = [], time.process_time()
        for step in range(self.first, self.steps):
            self.set_rates(min(1, (step + 1) / WARM_UP, 0.02 + (self.steps - step) / (self.decay * self.steps)))
            torch.manual_seed(step)
            value = loss(random.Random(step))
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimiser in self.optimisers:
                optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - min(self.weight, (step + 1) / (step + 11)))
            losses.append(value.item())
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == self.steps:
                seconds = time.process_time() - start
                speed = (step + 1 - self.first) * self.batch / seconds
                mean = np.mean(losses[-CHECKPOINT_EVERY:])
                print(f"step {step + 1} loss {mean:.4f}, {speed:.0f} samples per CPU-second, {(self.spent + seconds) / 60:.1f} CPU-minutes", flush=True)
                self.save(step + 1, self.spent + seconds)

    def set_rates(self, share):
        for optimiser, rates in zip(self.optimisers, self.rates):
            for group, rate in zip(optimiser.param_groups, rates):
                group["lr"] = rate * share

    def save(self, step, spent):
        state = {"parameters": self.parameters, "average": self.average, "optimisers": [o.state_dict() for o in self.optimisers]}
        torch.save({**state, "step": step, "cpu": spent}, self.checkpoint.with_suffix(".new"))
        os.replace(self.checkpoint.with_suffix(".new"), self.checkpoint)

    @torch.no_grad()
    def restore(self, state):
        for mine, saved in ((self.parameters, state["parameters"]), (self.average, state["average"])):
            for tensor, value in zip(mine, saved):
                tensor.copy_(value)
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.first, self.spent = state["step"], state["cpu"]

    @contextmanager
    def averaged(self):
        """Within, the parameters are their averages."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average):
                parameter.copy_(value)
            yield
            for parameter, value in zip(self.parameters, own):
                parameter.copy_(value)
