#!/usr/bin/env python3
"""Writes swaps.json and swaps.safetensors: every swap of one scheduler class for another that diffusers supports.

    python swaps.py                     # Writes into the folder of this script.
    python swaps.py --options --out DIR # Instead of swaps: each class with each of its options, on two pipelines.

Needs diffusers 0.42.1, torch, transformers, safetensors, scipy and torchsde.

For every ordered pair of classes (A, B), with the pipeline `sd1` of the fixtures:

- saved:  the folder is saved with A and loaded, A is replaced by `B.from_config(A.config)`, and the folder is saved
          again. B gets all keys of A, including those with A's default values.
- direct: the same without saving in between. B gets the keys of the pipeline's own file.
- karras: as saved, with `B.from_config(A.config, use_karras_sigmas=True)`, if B has this key.
- noted:  A's configuration from memory, with the list `_use_default_values`, under B's name, for two classes A.

The results are the scheduler's file exactly as diffusers wrote it, and the picture drawn with it. swaps.json contains
`files` (texts), `request`, and `runs` (name, pipeline, indices of file and picture). swaps.safetensors contains
`pictures`, (N, height, width, 3), bytes. Equal files and equal pictures are stored once. B must run in
`StableDiffusionPipeline`, so the classes of flow matching are only A.
"""
import argparse
import inspect
import json
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ["DIFFUSERS_VERBOSITY"] = "error"
import diffusers
import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures" / "parity" / "pipelines"
REQUEST = dict(prompt="a red fox", width=32, height=32, steps=6, guidance_scale=7.5, seed=7, seed_mode="batch")
FLOAT = dict(torch_dtype=torch.float32)
CLASSES = [name + "Scheduler" for name in (
    "DDPM DDIM PNDM IPNDM EulerDiscrete EulerAncestralDiscrete HeunDiscrete LMSDiscrete KDPM2Discrete KDPM2AncestralDiscrete "
    "DPMSolverSDE DPMSolverMultistep DPMSolverSinglestep UniPCMultistep DEISMultistep SASolver LCM TCD EDMEuler "
    "EDMDPMSolverMultistep FlowMatchEulerDiscrete FlowMatchHeunDiscrete CMStochasticIterative"
).split()]
OPTIONS = {
    "use_karras_sigmas": [True], "use_exponential_sigmas": [True], "use_beta_sigmas": [True], "use_lu_lambdas": [True],
    "timestep_spacing": ["linspace", "leading", "trailing"], "steps_offset": [0, 3],
    "prediction_type": ["v_prediction", "sample"], "beta_schedule": ["linear", "squaredcos_cap_v2", "sigmoid"],
    "beta_start": [0.002], "num_train_timesteps": [400], "trained_betas": [[0.002 + 0.00002 * i for i in range(1000)]],
    "rescale_betas_zero_snr": [True], "thresholding": [True, None], "dynamic_thresholding_ratio": [0.5],
    "sample_max_value": [3.0], "clip_sample": [True, False, None], "clip_sample_range": [0.5],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"],
    "set_alpha_to_one": [True, False, None], "skip_prk_steps": [True, False, None],
    "interpolation_type": ["log_linear"], "timestep_type": ["continuous"], "final_sigmas_type": ["zero", "sigma_min"],
    "sigma_min": [0.1, None], "sigma_max": [10.0, None],
    "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis", "data_prediction",
                       "noise_prediction"],
    "solver_order": [1, 2, 3], "solver_type": ["midpoint", "heun", "logrho", "bh1", "bh2"],
    "lower_order_final": [True, False, None], "euler_at_final": [True, None], "use_flow_sigmas": [True], "flow_shift": [3.0],
    "lambda_min_clipped": [-5.1, -1.0], "use_dynamic_shifting": [True], "time_shift_type": ["linear"],
    "shift_terminal": [0.1], "predict_x0": [False, None], "disable_corrector": [[0, 2]],
    "predictor_order": [1, 3, 4], "corrector_order": [1, 3], "original_inference_steps": [40], "timestep_scaling": [3.0],
    "noise_sampler_seed": [11], "sigma_data": [0.8], "sigma_schedule": ["exponential"], "rho": [5.0], "s_noise": [0.5],
    "clip_denoised": [False],
}
TOGETHER = [
    dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"),
    dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    dict(use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="sigma_min"),
    dict(thresholding=True, sample_max_value=2.0, dynamic_thresholding_ratio=0.8),
    dict(clip_sample=True, clip_sample_range=2.0),
    dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
    dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min"),
    dict(solver_order=3, lower_order_final=False), dict(solver_order=3, final_sigmas_type="sigma_min"),
    dict(solver_order=3, algorithm_type="sde-dpmsolver++"), dict(solver_type="bh1", final_sigmas_type="sigma_min"),
    dict(use_karras_sigmas=True, final_sigmas_type="sigma_min"), dict(use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0),
    dict(use_karras_sigmas=True, algorithm_type="sde-dpmsolver++"), dict(use_karras_sigmas=True, timestep_spacing="leading"),
    dict(use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2"), dict(use_lu_lambdas=True, beta_schedule="squaredcos_cap_v2"),
    dict(prediction_type="v_prediction", timestep_type="continuous"),
    dict(prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0),
    dict(steps_offset=3, timestep_spacing="leading"), dict(predict_x0=False, solver_order=3, final_sigmas_type="sigma_min"),
]


class Book:
    """The collected runs, with each different file and picture once."""

    def __init__(self):
        self.files, self.pictures, self.runs, self.drawn = {}, {}, [], {}
        self.pipelines = {
            "sd1": diffusers.StableDiffusionPipeline.from_pretrained(FIXTURES / "sd1", safety_checker=None, **FLOAT),
            "sdxl": diffusers.StableDiffusionXLPipeline.from_pretrained(FIXTURES / "sdxl", **FLOAT),
        }

    def add(self, pipeline, name, file):
        """Draws with the scheduler's file and records the run. Runs that fail in diffusers are skipped."""
        try:
            text = file()
            key = (pipeline, text)
            if key not in self.drawn:
                self.drawn[key] = self.draw(pipeline, text)
            picture = self.drawn[key]
        except Exception as why:
            print(f"{pipeline} {name}: {type(why).__name__}: {str(why)[:100]}")
            return
        if picture is None:
            print(f"{pipeline} {name}: not finite")
            return
        file = self.files.setdefault(text, len(self.files))
        index = self.pictures.setdefault(picture, len(self.pictures))
        self.runs.append(dict(name=name, pipeline=pipeline, file=file, picture=index))

    def draw(self, pipeline, text):
        pipe = self.pipelines[pipeline]
        scheduler = loaded(text)
        if getattr(scheduler, "noise_sampler_seed", 0) is None:  # None: random. latentd uses the image's seed.
            scheduler.noise_sampler_seed = REQUEST["seed"]
        parts = dict(pipe.components, scheduler=scheduler)
        if pipeline == "sd1":
            parts["requires_safety_checker"] = False
        pipe = type(pipe)(**parts)
        pipe.set_progress_bar_config(disable=True)
        picture = pipe(
            REQUEST["prompt"], width=REQUEST["width"], height=REQUEST["height"], num_inference_steps=REQUEST["steps"],
            guidance_scale=REQUEST["guidance_scale"], generator=torch.Generator().manual_seed(REQUEST["seed"]), output_type="np",
        ).images[0]
        return (picture * 255).round().astype(np.uint8).tobytes() if np.isfinite(picture).all() else None

    def write(self, out):
        shape = (len(self.pictures), REQUEST["height"], REQUEST["width"], 3)
        pictures = np.frombuffer(b"".join(self.pictures), np.uint8).reshape(shape)
        save_file({"pictures": pictures}, out / "swaps.safetensors")
        about = dict(diffusers=diffusers.__version__, request=REQUEST, files=list(self.files), runs=self.runs)
        (out / "swaps.json").write_text(json.dumps(about, indent=0) + "\n")
        print(f"{len(self.runs)} runs, {len(self.files)} files, {len(self.pictures)} pictures")


def saved(scheduler):
    with tempfile.TemporaryDirectory() as folder:
        scheduler.save_pretrained(folder)
        return (Path(folder) / "scheduler_config.json").read_text()


def loaded(text):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scheduler_config.json").write_text(text)
        return getattr(diffusers, json.loads(text)["_class_name"]).from_pretrained(folder)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default=HERE, type=Path)
    ap.add_argument("--options", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    book = Book()
    own = {name: json.loads((FIXTURES / name / "scheduler" / "scheduler_config.json").read_text()) for name in book.pipelines}
    if a.options:
        for pipeline in own:
            for name in CLASSES:
                cls = getattr(diffusers, name)
                keys = set(inspect.signature(cls.__init__).parameters)
                each = [{}] + [{key: value} for key, values in OPTIONS.items() for value in values] + TOGETHER
                for options in each:
                    if set(options) <= keys:
                        book.add(pipeline, f"{name} {options}"[:160], lambda: saved(cls.from_config(own[pipeline], **options)))
    else:
        for first in CLASSES:
            a_scheduler = getattr(diffusers, first).from_config(own["sd1"])
            for how, config in (("saved", loaded(saved(a_scheduler)).config), ("direct", a_scheduler.config)):
                for second in CLASSES:
                    if first != second:
                        name = f"{first} > {second} ({how})"
                        cls = getattr(diffusers, second)
                        book.add("sd1", name, lambda: saved(cls.from_config(config)))
                        if how == "saved" and "use_karras_sigmas" in inspect.signature(cls.__init__).parameters:
                            name = f"{first} > {second} (karras)"
                            book.add("sd1", name, lambda: saved(cls.from_config(config, use_karras_sigmas=True)))
        for first in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
            config = dict(getattr(diffusers, first).from_config(own["sd1"]).config)
            for second in CLASSES:
                text = json.dumps(dict(config, _class_name=second), indent=2, sort_keys=True) + "\n"
                book.add("sd1", f"{first} > {second} (noted)", lambda: text)
    book.write(a.out)


main()
