"""Which words for motions the frozen U-Net's features tell apart, since the motion adapter reads only these features.

Captions of random scenes get one of the words. At two high noise levels, a linear classifier (ridge regression) guesses the word from
the means over the picture of four layers' features, for things that it was not fitted to. The same classifier on the mean of the
text states shows what the text encoder knows of the word, and the U-Net's features do not.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from captions import Captions
from companions.base import TRAINING, Base
from latents import Latents, to_tensor
from scenes import Scenes

WORDS = [
    "spinning", "rotating", "rolling", "twirling", "bouncing", "jumping", "hopping", "swaying", "nodding", "swinging", "rocking", "dancing",
    "waving", "pulsing", "growing", "beating", "breathing", "shaking", "trembling", "turning", "flipping", "sliding", "moving", "running",
    "growing and shrinking", "",
]  # fmt: skip
TIMESTEPS = (999, 930)
UNSEEN = 60  # things
RIDGE = 100.0


def watch(layers):
    """Lets the layers append the means (B, C) of their outputs to the list that is returned."""
    seen = []

    def append(module, inputs, output):
        tensor = output[0] if isinstance(output, tuple) else output
        seen.append(tensor.float().mean((2, 3)))

    for layer in layers:
        layer.register_forward_hook(append)
    return seen


def watched(unet):
    return (unet.mid_block, unet.up_blocks[0].attentions[1], unet.up_blocks[1].attentions[0], unet.up_blocks[1].attentions[1])


@torch.no_grad()
def collect(work, batches):
    """(features (N, D), mean text states (N, 192), words (N,), whether the thing is unseen (N,))."""
    base, scenes, captions, latents = Base(), Scenes(work), Captions(), Latents.load(TRAINING / "latents.safetensors")
    unseen = set(random.Random(1).sample(sorted(scenes.weights), UNSEEN))
    seen, rng = watch(watched(base.unet)), random.Random(0)
    features, texts, words, held = [], [], [], []
    for batch in range(batches):
        drawn = [(scenes.draw(rng), word) for word in range(len(WORDS)) for _ in range(3)]
        asked = [captions.caption(scene, rng) + (f", {WORDS[word]}" if WORDS[word] else "") for scene, word in drawn]
        states = base.encode(asked)
        clean = latents.encode(to_tensor(np.stack([scenes.picture(scene) for scene, _ in drawn])))
        timesteps = torch.full((len(drawn),), TIMESTEPS[batch % len(TIMESTEPS)])
        seen.clear()
        base.predict(base.noised(clean, torch.randn_like(clean), timesteps), timesteps, states)
        features.append(torch.cat(seen, 1))
        texts.append(states.mean(1))
        words += [word for _, word in drawn]
        held += [scene.things[0].concept in unseen for scene, _ in drawn]
    return torch.cat(features), torch.cat(texts), torch.tensor(words), torch.tensor(held)


def guesses(features, words, held):
    """The guessed words of the samples with unseen things."""
    known = ~held
    scaled = (features - features[known].mean(0)) / (features[known].std(0) + 1e-4)
    scaled = torch.cat([scaled, torch.ones(len(scaled), 1)], 1)
    fitted = scaled[known]
    weights = torch.linalg.solve(fitted.mT @ fitted + RIDGE * torch.eye(fitted.shape[1]), fitted.mT @ torch.eye(len(WORDS))[words[known]])
    return (scaled[held] @ weights).argmax(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    parser.add_argument("--batches", type=int, default=110)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features, texts, words, held = collect(arguments.work, arguments.batches)
    right = {name: guesses(values, words, held) == words[held] for name, values in (("U-Net", features), ("text", texts))}
    print(f"of {int(held.sum())} samples, by chance {1 / len(WORDS):.2f}: U-Net {right['U-Net'].float().mean():.2f}, text {right['text'].float().mean():.2f}")
    for number, word in enumerate(WORDS):
        chosen = words[held] == number
        print(f"{word or '(none)'}: U-Net {right['U-Net'][chosen].float().mean():.2f}, text {right['text'][chosen].float().mean():.2f}")


if __name__ == "__main__":
    main()
