#!/bin/sh
# What one expects: the levels of flow matching follow from the paper's formula (Esser et al. 2024, arXiv:2403.03206): n evenly spaced
# levels between 1 and 1/1000, each shifted once: σ' = s σ / (1 + (s − 1) σ). And a model folder whose scheduler is replaced by another class
# with the same shift visits the same levels.
# What happens with diffusers 0.42.1:
# - FlowMatchEulerDiscreteScheduler.set_timesteps(n), the way Stable Diffusion 3 calls it, shifts the two ends twice: the constructor has
#   already shifted sigma_min, and set_timesteps spaces levels between the shifted ends and shifts them again. With s = 3 the last level is
#   0.00893, three times the formula's 0.00299, and all levels between the ends move a little. The levels are those of the formula if the
#   caller passes `sigmas`, or if the shift is given as `mu` with dynamic shifting, although the factor is the same.
# - DPMSolverMultistepScheduler and UniPCMultistepScheduler with use_flow_sigmas and the same flow_shift shift once and leave out the lowest level:
#   four steps go from about 1, 0.9, 0.75 and 0.5 to 0, where Euler's go from 1, 0.858, 0.602 and 0.009 to 0. So Euler's last step of n does
#   next to nothing, and the other classes take one useful step more.
# Source: __init__ and set_timesteps in src/diffusers/schedulers/scheduling_flow_match_euler_discrete.py; set_timesteps in
# scheduling_dpmsolver_multistep.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.15.0 numpy transformers
cat > "$folder/check.py" <<'PY'
import math

import diffusers
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

print("diffusers", diffusers.__version__)
SHIFT, STEPS = 3.0, 4
even = [1 + i / (STEPS - 1) * (1 / 1000 - 1) for i in range(STEPS)]
formula = [SHIFT * sigma / (1 + (SHIFT - 1) * sigma) for sigma in even]


def levels(scheduler, **arguments):
    scheduler.set_timesteps(**arguments)
    return scheduler.sigmas.tolist()[:STEPS]


def show(name, found):
    print(f"{name:34}", " ".join(f"{sigma:.5f}" for sigma in found))
    return found


def equal(found, wanted):
    return all(abs(a - b) < 2e-4 for a, b in zip(found, wanted, strict=True))


show("formula", formula)
plain = show("Euler, n", levels(FlowMatchEulerDiscreteScheduler(shift=SHIFT), num_inference_steps=STEPS))
given = show("Euler, sigmas", levels(FlowMatchEulerDiscreteScheduler(shift=SHIFT), sigmas=even))
dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
dynamic = show("Euler, n and mu = ln(shift)", levels(dynamic, num_inference_steps=STEPS, mu=math.log(SHIFT)))
assert equal(given, formula) and equal(dynamic, formula)
assert not equal(plain, formula) and 2.9 < plain[-1] / formula[-1] < 3.0
for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler):
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    other = show(kind.__name__, levels(scheduler, num_inference_steps=STEPS))
    assert abs(other[-1] - 0.5) < 2e-3 and plain[-1] < 0.01
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py"
