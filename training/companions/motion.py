"""The motion adapter (Guo et al., AnimateDiff, arXiv:2307.04725): attention among the frames of a film, between the frozen layers.

The samples are clips of scenes whose things move (motions.py); every caption names the motion. The modules do not read the caption,
but the frozen U-Net's features depend on it. The last layer of every module starts at zero, so that at first the base model draws
each frame by itself. All frames of a clip have the same timestep and different noise, as in diffusers' AnimateDiffPipeline.
"""

import argparse

import torch
from companions.base import TRAINING, Base, half_products, save_model
from companions.loop import Loop, add_arguments
from companions.motions import clip, draw_motion, in_motion
from captions import Captions
from diffusers import MotionAdapter, UNetMotionModel
from latents import Latents
from muon import Muon, split_parameters
from scenes import Scenes
from torch.nn.attention import SDPBackend, sdpa_kernel
from unet import draw_timesteps, drop_word

EMPTY_SHARE = 0.1


def build():
    adapter = MotionAdapter(
        block_out_channels=(64, 128, 160), motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=16,
        use_motion_mid_block=True, motion_max_seq_length=16,
    )  # fmt: skip
    for module in motion_modules(adapter):
        torch.nn.init.zeros_(module.proj_out.weight)
        torch.nn.init.zeros_(module.proj_out.bias)
    return adapter


def motion_modules(model):
    """The motion modules of an adapter, or of a U-Net with one."""
    return [module for name, module in model.named_modules() if "motion_modules" in name.split(".")[-2:-1]]


class ShortAttention:
    """Attention by plain products, which for a few frames is several times faster than the fused operation."""

    def __call__(self, attention, hidden, encoder_hidden_states=None, attention_mask=None):
        split = lambda tensor: tensor.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # noqa: E731
        query, key, value = split(attention.to_q(hidden)), split(attention.to_k(hidden)), split(attention.to_v(hidden))
        weights = (query * attention.scale @ key.mT).softmax(-1).to(value.dtype)
        return attention.to_out[0]((weights @ value).transpose(1, 2).flatten(-2))


def with_adapter(unet, adapter):
    """The frozen U-Net with the adapter's weights, which alone learn."""
    model = UNetMotionModel.from_unet2d(unet, adapter).requires_grad_(False)
    modules = motion_modules(model)
    for module in modules:
        module.requires_grad_(True)
        for block in module.transformer_blocks:
            block.attn1.set_processor(ShortAttention())
            block.attn2.set_processor(ShortAttention())
    return model, torch.nn.ModuleList(modules)


def save_adapter(model, folder):
    """Writes the adapter as diffusers' MotionAdapter reads it."""
    adapter = build()
    states = {name: tensor for name, tensor in model.state_dict().items() if "motion_modules" in name}
    adapter.load_state_dict(states)
    save_model(adapter, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TRAINING / "work", steps=6000, batch=64)
    parser.add_argument("--output", type=type(TRAINING), default=TRAINING / "work" / "motion-adapter")
    parser.add_argument("--frames", type=int, nargs="+", default=[8], help="lengths of the clips; a batch has --batch frames of one length")
    parser.add_argument("--export", action="store_true", help="only write the adapter of the last checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base, captions = Base(), Captions()
    latents = Latents.load(TRAINING / "latents.safetensors")
    torch.manual_seed(0)
    model, modules = with_adapter(base.unet, build())
    matrices, rest = split_parameters(modules)
    optimisers = [Muon(matrices, lr=0.02, weight_decay=0.02), torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.98), weight_decay=0)]
    if arguments.export:
        arguments.resume = True
    loop = Loop(matrices + rest, optimisers, arguments.work / "motion.pt", arguments, decay=0.3, average=0.99)
    if arguments.export:
        with loop.averaged():
            save_adapter(model, arguments.output)
        return
    scenes = Scenes(arguments.work)

    def loss(rng):
        frames = rng.choice(arguments.frames)
        drawn = [(scenes.draw(rng), *draw_motion(rng)) for _ in range(arguments.batch // frames)]
        states = base.encode([in_motion(drop_word(captions.caption(scene, rng), rng), word, rng) for scene, _, word in drawn])
        states[torch.rand(len(drawn)) < EMPTY_SHARE] = base.empty
        clean = latents.encode(torch.cat([clip(scenes, scene, motion, frames) for scene, motion, _ in drawn]))
        noise, timesteps = torch.randn_like(clean), draw_timesteps(len(drawn))
        each = timesteps.repeat_interleave(frames)
        noisy = base.noised(clean, noise, each).unflatten(0, (-1, frames)).transpose(1, 2)
        with half_products(), sdpa_kernel(SDPBackend.MATH):
            guess = model(noisy, timesteps, states.repeat_interleave(frames, 0)).sample.float().transpose(1, 2).flatten(0, 1)
        errors = (guess - base.velocity(clean, noise, each)).square().mean((1, 2, 3))
        return (errors * base.levels(each)[1].flatten()).mean()

    loop.run(loss)
    with loop.averaged():
        save_adapter(model, arguments.output)


if __name__ == "__main__":
    main()
