"""Fills the work folder as if it had just trained the weights of a model folder, so that a training can continue from these weights.

The latent space and the heads of the text encoder do not belong to a model folder; `export.py` stores them next to the scripts.
"""

import argparse
import shutil
from pathlib import Path

import torch
from captions import Captions
from safetensors.torch import load_file
from text_encoder import Labels, Student, text_config
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "emoji")
    arguments = parser.parse_args()
    work, model = arguments.work, arguments.model
    for part in ("tokenizer", "text_encoder", "unet", "vae"):
        shutil.copytree(model / part, work / part, dirs_exist_ok=True)
    shutil.copy(HERE / "latents.safetensors", work)

    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    student = Student(text_config(len(tokenizer), tokenizer.model_max_length), Labels(Captions()))
    student.model = CLIPTextModel.from_pretrained(work / "text_encoder", dtype=torch.float32)
    # If concepts were added since, some heads have too few rows; these heads are trained from scratch.
    helpers, shapes = load_file(HERE / "heads.safetensors"), student.state_dict()
    student.load_state_dict({name: tensor.float() for name, tensor in helpers.items() if tensor.shape == shapes[name].shape}, strict=False)
    torch.save(student.state_dict(), work / "student.pt")


if __name__ == "__main__":
    main()
