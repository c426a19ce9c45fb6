"""Writes sde.json: the states of diffusers' score SDE schedulers. Run with diffusers 0.42.1 and torch, on a CPU.

The network is `score = -a / t` for ScoreSdeVeScheduler and `epsilon = a` for ScoreSdeVpScheduler, with
`a = 0.9 x / sqrt(1 + x^2) + 0.1 t / 1000`, the state x and the time t that the network gets. A generator with seed 1234
makes the noise, and one with seed 99 the start. The loop is that of ScoreSdeVePipeline. ScoreSdeVpScheduler no longer
has a pipeline; its network gets the time `t (T - 1)`.
"""
import json
from pathlib import Path

import torch
from diffusers import ScoreSdeVeScheduler
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler


def formula(x, t):
    return 0.9 * x / torch.sqrt(1 + x * x) + 0.1 * t / 1000


def ve(config, steps, x, generator):
    scheduler = ScoreSdeVeScheduler(**config)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    x = x * scheduler.init_noise_sigma
    states, told = [], []

    def network():
        states.append(x)
        told.append(float(sigma))
        return -formula(x, sigma) / sigma

    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i]
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(network(), x, generator=generator).prev_sample
        output = scheduler.step_pred(network(), t, x, generator=generator)
        x, mean = output.prev_sample, output.prev_sample_mean
    return states + [mean], told


def vp(config, steps, x, generator):
    scheduler = ScoreSdeVpScheduler(**config)
    scheduler.set_timesteps(steps)
    states, told = [], []
    for t in scheduler.timesteps:
        timestep = t * (scheduler.config.num_train_timesteps - 1)
        states.append(x)
        told.append(float(timestep))
        x, mean = scheduler.step_pred(formula(x, timestep), x, t, generator=generator)
    return states + [mean], told


def case(run, name, config, steps, batch=1):
    start = torch.randn((batch, 1, 4, 4), generator=torch.Generator().manual_seed(99))
    states, told = run(config, steps, start, torch.Generator().manual_seed(1234))
    states = [[float(value) for value in state.flatten()] for state in states]
    return {"class": name, "config": config, "steps": steps, "batch": batch, "told": told, "states": states}


VE, VP = (ve, "ScoreSdeVeScheduler"), (vp, "ScoreSdeVpScheduler")
cases = [
    case(*VE, {}, 1),
    case(*VE, {}, 5),
    case(*VE, {"sigma_min": 0.15, "sigma_max": 50.0}, 7, batch=2),
    case(*VE, {"sigma_min": 0.15, "sigma_max": 50.0, "snr": 0.3, "correct_steps": 2}, 4, batch=2),
    case(*VE, {"correct_steps": 0, "sampling_eps": 0.3}, 5),
    case(*VP, {}, 1),
    case(*VP, {}, 10),
    case(*VP, {"num_train_timesteps": 1000, "beta_min": 0.2, "beta_max": 15, "sampling_eps": 0.01}, 4, batch=2),
]
Path(__file__).with_suffix(".json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
