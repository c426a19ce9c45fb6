"""Makes a new word of the base model by textual inversion (Gal et al., arXiv:2208.01618): `<teal>`, a color between green and blue.

Only the embedding of the new token is trained; the text encoder and the U-Net are frozen. The embedding starts half way between two
words that the base model knows.
"""

import argparse

import numpy as np
import torch
from captions import Captions, with_article
from companions.base import COMPANIONS, TRAINING, Base, half_products
from companions.loop import Loop, add_arguments
from data import SHADES, main_hue, to_bytes, to_hsv, turn
from latents import Latents, to_tensor
from safetensors.torch import save_file
from scenes import LAYOUTS, Scenes, compose
from unet import draw_timesteps

TOKEN, HUE, BETWEEN = "<teal>", 172, ("green", "blue")


def teal_pictures(scenes):
    """(concept, style, picture in teal) of everything with one main hue; black, white and gray things are left out."""
    found = []
    for (style, concept, colour), picture in scenes.pictures.items():
        if colour in SHADES:
            continue
        picture = picture.astype(np.float32) / 255
        alpha = picture[..., 3:]
        hue = main_hue(to_hsv(picture[..., :3] / np.maximum(alpha, 1e-6)), alpha)
        if hue and hue[1] > 0.75 and (colour or not scenes.colours.get((style, concept))):
            found.append((concept, style, to_bytes(turn(picture, hue[0], HUE))))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TRAINING / "work", steps=200, batch=16)
    parser.add_argument("--output", type=type(COMPANIONS), default=COMPANIONS / "teal-embedding")
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    base, captions = Base(), Captions()
    pictures, latents = teal_pictures(Scenes(arguments.work)), Latents.load(arguments.work / "latents.safetensors")
    print(f"{len(pictures)} pictures")

    base.tokenizer.add_tokens(TOKEN)
    embedding = base.encoder.get_input_embeddings()
    known = embedding.weight[[base.tokenizer(word).input_ids[1] for word in BETWEEN]]
    vector = torch.nn.Parameter(known.mean(0, keepdim=True))
    weight = embedding.weight
    loop = Loop([vector], [torch.optim.Adam([vector], lr=arguments.rate)], arguments.work / "inversion.pt", arguments)

    def encode(texts):
        ids = base.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        embedding._parameters["weight"] = torch.cat([weight, vector])
        with half_products():
            return base.encoder(ids).last_hidden_state.float()

    def loss(rng):
        chosen = [rng.choice(pictures) for _ in range(arguments.batch)]
        texts = [captions.in_style(with_article(f"{TOKEN} {captions.names[concept][0]}"), style, rng) for concept, style, _ in chosen]
        clean = latents.encode(to_tensor(np.stack([compose([picture], LAYOUTS["whole"].boxes) for _, _, picture in chosen])))
        timesteps, noise = draw_timesteps(len(clean)), torch.randn_like(clean)
        guess = base.predict(base.noised(clean, noise, timesteps), timesteps, encode(texts))
        errors = (guess - base.velocity(clean, noise, timesteps)).square().mean((1, 2, 3))
        return (errors * base.levels(timesteps)[1].flatten()).mean()

    loop.run(loss)
    with loop.averaged():
        print(f"the word moved by {(vector - known.mean(0)).norm():.2f}; the two that it started from are {(known[0] - known[1]).norm():.2f} apart")
        arguments.output.mkdir(parents=True, exist_ok=True)
        file = arguments.output / "learned_embeds.safetensors"
        save_file({TOKEN: vector.detach().half()}, file, metadata={"format": "pt"})
        file.chmod(0o644)


if __name__ == "__main__":
    main()
