"""Measures how much diffusers' DPMSolverSDEScheduler changes if its float32 `log` and `exp` are rounded correctly.

torch's vectorized `log` and `exp` sometimes differ from the nearest float32, differently on different machines. This
scheduler turns them into times of a Brownian path, which magnifies a difference in the last bit. The script runs each
configuration twice, unchanged and with both functions computed in float64 and rounded, and prints the largest
difference of the states after whole steps, divided by the largest state.

    pip install torch diffusers scipy torchsde
    python tests/schedulers/dpm_sde.py > tests/schedulers/dpm_sde.txt
"""

import torch
from diffusers import DPMSolverSDEScheduler

LINEAR = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
CONFIGURATIONS = {
    "scaled_linear": LINEAR,
    "leading": dict(LINEAR, timestep_spacing="leading"),
    "trailing": dict(LINEAR, timestep_spacing="trailing"),
    "karras": dict(LINEAR, use_karras_sigmas=True),
    "exponential": dict(LINEAR, use_exponential_sigmas=True),
    "beta": dict(LINEAR, use_beta_sigmas=True),
    "linear": dict(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    "v_prediction": dict(LINEAR, prediction_type="v_prediction"),
}
STEPS = (5, 7, 10, 20, 50)
LOG, EXP = torch.Tensor.log, torch.Tensor.exp


def rounded(function):
    return lambda x: function(x.double()).to(x.dtype)


def states(settings, steps):
    scheduler = DPMSolverSDEScheduler(noise_sampler_seed=0, **settings)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(99)) * float(scheduler.init_noise_sigma)
    whole = []
    for i, t in enumerate(scheduler.timesteps):
        # The formula that replaces the network in the tests of trajectories.
        inputs = scheduler.scale_model_input(x, t)
        output = 0.9 * inputs / torch.sqrt(1 + inputs * inputs) + 0.1 * (float(t) / 1000.0)
        x = scheduler.step(output, t, x).prev_sample
        if i % 2 or i + 1 == len(scheduler.timesteps):
            whole.append(x)
    return torch.cat(whole)


def main():
    for name, settings in CONFIGURATIONS.items():
        for steps in STEPS:
            torch.Tensor.log, torch.Tensor.exp = LOG, EXP
            as_is = states(settings, steps)
            torch.Tensor.log, torch.Tensor.exp = rounded(LOG), rounded(EXP)
            moved = (states(settings, steps) - as_is).abs().max() / as_is.abs().max()
            print(f"{name:<14} {steps:>3} steps  {float(moved):.1e}")


if __name__ == "__main__":
    main()
