"""Reference pictures of the exported folder, made by diffusers in full precision, for checking another implementation.

Besides the pictures it writes the intermediate results: the tokens, the text states, the noise from which the sampler starts, and
the final latents. With the same noise, another implementation should compute the same latents.
"""

import argparse
import json
from pathlib import Path

import torch
from companions.drawing import control_pipeline, lcm_pipeline, lora_pipeline, teal_pipeline, tiny_pipeline
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
PICTURES = [("a red fox", 1), ("a slice of pizza, noto style", 2), ("a blue cat", 3)]
EDGES = HERE.parent / "tests" / "fixtures" / "canny" / "shapes_edges.png"


def companions(settings, output):
    """One picture with each companion, and the request to the server that is the same."""
    few = {"num_inference_steps": 2, "guidance_scale": 1.0}
    edges = {"image": Image.open(EDGES).convert("RGB")}
    cases = [
        ("lcm", lcm_pipeline, "a red fox", few, {"loras": [{"name": "emoji-lcm"}], "scheduler": "lcm", "steps": 2, "guidance_scale": 1}),
        ("flat", lambda: lora_pipeline("flat-lora"), "a red fox", settings, {"loras": [{"name": "emoji-flat"}]}),
        ("pixel", lambda: lora_pipeline("pixel-lora"), "a red fox", settings, {"loras": [{"name": "emoji-pixel"}]}),
        ("teal", teal_pipeline, "a <teal> heart", settings, {}),
        ("canny", control_pipeline, "a panda", settings | edges, {"controls": [{"model": "emoji-canny"}]}),
        ("tiny", tiny_pipeline, "a red fox", settings, {"decoder": "tiny"}),
    ]
    pictures = []
    for name, pipeline, prompt, arguments, request in cases:
        picture = pipeline()(prompt, generator=torch.Generator().manual_seed(4), **arguments).images[0]
        picture.save(output / f"{name}.png")
        pictures.append({"file": f"{name}.png", "prompt": prompt, "seed": 4, "request": request})
    return pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "emoji")
    parser.add_argument("--output", type=Path, default=HERE / "work" / "reference")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)

    defaults = json.loads((arguments.model / "latentd.json").read_text())
    steps, guidance = defaults["steps"], defaults["guidance_scale"]
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    tokenizer, size = pipeline.tokenizer, pipeline.unet.config.sample_size

    tensors, pictures = {}, []
    for prompt, seed in PICTURES:
        noise = torch.randn(1, pipeline.unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
        settings = {"num_inference_steps": steps, "guidance_scale": guidance}
        result = pipeline(prompt, generator=torch.Generator().manual_seed(seed), output_type="latent", **settings)
        # The pipeline draws the same noise from the same seed; the latents given here prove it.
        again = pipeline(prompt, latents=noise.clone(), output_type="latent", **settings)
        assert torch.equal(result.images, again.images)
        with torch.no_grad():
            decoded = pipeline.vae.decode(result.images / pipeline.vae.config.scaling_factor).sample[0]
            ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
            states = pipeline.text_encoder(ids).last_hidden_state
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(arguments.output / f"{seed}.png")
        parts = {"ids": ids, "text_states": states, "noise": noise, "latents": result.images, "decoded": decoded}
        tensors |= {f"{seed}.{name}": tensor.contiguous() for name, tensor in parts.items()}
        pictures.append({"file": f"{seed}.png", "prompt": prompt, "negative_prompt": "", "seed": seed})

    pipeline.scheduler.set_timesteps(steps)
    save_file(tensors, arguments.output / "reference.safetensors")
    description = {
        "pictures": pictures,
        "companions": companions({"num_inference_steps": steps, "guidance_scale": guidance}, arguments.output),
        "width": defaults["width"],
        "height": defaults["height"],
        "steps": steps,
        "guidance_scale": guidance,
        "precision": "the half-precision weights, computed with in float32",
        "noise": "torch.randn(1, 16, 16, 16) from a CPU generator with the seed; in reference.safetensors as <seed>.noise",
        "scheduler": type(pipeline.scheduler).__name__,
        "timesteps": pipeline.scheduler.timesteps.tolist(),
        "sigmas": pipeline.scheduler.sigmas.tolist(),
    }
    (arguments.output / "reference.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
