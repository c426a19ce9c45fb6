"""Draws films with the motion adapter and diffusers' AnimateDiffPipeline: contact sheets, and the figures of the model card.

- motion: for each motion that the adapter knows, the film's frames are moved back as if the things had moved so. The motion whose
  frames then are the most alike is the one that the film shows; it is right if it is the requested one. "still" is a candidate too.
- likeness: the share of the variance that the frames, moved back by the requested motion, have in common.
- thing: the share of the frames, moved back by the requested motion, for which the wanted thing is the nearest of all emoji
  (evaluate.py). Without the adapter, the base model's pictures of the same prompts without the motion's words.

Frames in which the thing is too narrow to be moved back are left out.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from companions.base import TRAINING, half_products
from companions.drawing import GUIDANCE, STEPS, base_pipeline, draw, quiet
from companions.motions import DEFAULT, MOTIONS, WORDS, Pose, canvas_to_thing, clip
from diffusers import AnimateDiffPipeline, MotionAdapter
from evaluate import Judge, shrink
from PIL import Image, ImageDraw
from scenes import LAYOUTS, SIZE, Scene, Scenes, Thing

THINGS = {
    "a red fox": "fox", "a panda": "panda", "a green frog": "frog", "a rocket": "rocket", "a cupcake": "cupcake", "a car": "car",
    "an octopus": "octopus", "a red apple": "red apple", "a hamburger": "hamburger", "a cat": "cat", "a house": "house", "a balloon": "balloon",
}  # fmt: skip
NARROWEST = 0.4
STILL = "still"
POSES = {**MOTIONS, STILL: lambda phase: Pose()}

def film_pipeline(folder):
    base, adapter = base_pipeline(), MotionAdapter.from_pretrained(folder, dtype=torch.float32)
    return quiet(AnimateDiffPipeline(base.vae, base.text_encoder, base.tokenizer, base.unet, adapter, base.scheduler))

def draw_films(pipeline, prompts, frames, seed=1, steps=STEPS, guidance=GUIDANCE, batch=4):
    """(N, frames, 128, 128, 3) bytes, all with the same seed."""
    films = []
    for start in range(0, len(prompts), batch):
        asked = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(seed) for _ in asked]
        more = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": generators, "output_type": "np"}
        with half_products():
            result = pipeline(asked, num_frames=frames, height=SIZE, width=SIZE, **more).frames
        films.append((np.asarray(result) * 255).round().astype(np.uint8))
    return np.concatenate(films)

def real_films(scenes, things, motion, frames):
    """As `draw_films`, clips of real emoji in the style `fluent`, to check the figures."""
    clips = [clip(scenes, Scene((Thing(thing),), "fluent", LAYOUTS["whole"]), motion, frames) for thing in things]
    return ((torch.stack(clips) + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).numpy()


def moved_back(film, motion):
    """(F, 128, 128, 3) bytes → the frames in which the thing is wide enough, as if it had not moved, float in 0–255."""
    poses = [POSES[motion](frame / len(film)) for frame in range(len(film))]
    wide = [i for i, pose in enumerate(poses) if abs(pose.width) >= NARROWEST]
    maps = []
    for i in wide:
        forth = torch.tensor([*canvas_to_thing(poses[i], (0, 0), 1), [0, 0, 1]])
        maps.append(forth.inverse()[:2])
    white_is_zero = 255 - torch.from_numpy(film[wide]).float().permute(0, 3, 1, 2)
    grid = F.affine_grid(torch.stack(maps), white_is_zero.shape, align_corners=False)
    return (255 - F.grid_sample(white_is_zero, grid, align_corners=False)).permute(0, 2, 3, 1).numpy()

def likeness(frames):
    """The share of the variance that all frames have in common, at most 1."""
    mean = frames.mean(0)
    return 1 - np.square(frames - mean).mean() / np.square(mean - mean.mean((0, 1))).mean()

def shown(film):
    alike = {motion: likeness(moved_back(film, motion)) for motion in POSES}
    return max(alike, key=alike.get)

def sheet(films, labels, file):
    page = Image.new("RGB", (110 + films.shape[1] * SIZE, len(films) * SIZE), "white")
    pen = ImageDraw.Draw(page)
    for y, (film, label) in enumerate(zip(films, labels)):
        pen.multiline_text((2, y * SIZE + SIZE // 2 - 12), label.replace(", ", ",\n"), fill="black")
        for x, frame in enumerate(film):
            page.paste(Image.fromarray(frame), (110 + x * SIZE, y * SIZE))
    page.save(file)

def measure(name, motion, films, things, judge):
    """Prints the figures of films of `things` that were asked for with `motion`."""
    found = [shown(film) for film in films]
    back = [moved_back(film, motion) for film in films]
    named = [judge.nearest(shrink(frames))[0] == thing for frames, thing in zip(back, things.values())]
    figures = f"motion {np.mean([f == motion for f in found]):.2f}, likeness {np.mean([likeness(b) for b in back]):.2f}"
    print(f"{name}: {figures}, thing {np.mean(np.concatenate(named)):.2f}; shown: {' '.join(found)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    parser.add_argument("--adapter", type=Path, default=TRAINING / "work" / "motion-adapter")
    parser.add_argument("--output", type=Path, help="folder of the contact sheets (default: the work folder)")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--things", type=int, default=len(THINGS), help="how many of the prompts")
    parser.add_argument("--motion", choices=MOTIONS, action="append", help="only these")
    parser.add_argument("--real", action="store_true", help="measure clips of real emoji instead")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    output = arguments.output or arguments.work
    output.mkdir(parents=True, exist_ok=True)
    things = dict(list(THINGS.items())[: arguments.things])
    judge = Judge(arguments.work)
    if arguments.real:
        scenes = Scenes(arguments.work)
        for motion in arguments.motion or MOTIONS:
            measure(motion, motion, real_films(scenes, things.values(), motion, arguments.frames), things, judge)
        return

    pipeline = film_pipeline(arguments.adapter)
    still = judge.nearest(shrink(draw(base_pipeline(), list(things))))[0]
    print(f"base: {np.mean(still == list(things.values())):.2f} of the pictures show the thing", flush=True)
    asked = [(motion, f"{{}}, {WORDS[motion][0]}") for motion in arguments.motion or MOTIONS]
    if not arguments.motion:
        asked.append((DEFAULT, "{}"))
    for motion, form in asked:
        prompts = [form.format(prompt) for prompt in things]
        films = draw_films(pipeline, prompts, arguments.frames, steps=arguments.steps, guidance=arguments.guidance)
        name = motion if form != "{}" else "none"
        sheet(films, prompts, output / f"films-{name}.png")
        measure(name, motion, films, things, judge)


if __name__ == "__main__":
    main()
