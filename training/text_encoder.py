"""The text encoder: a small CLIPTextModel, trained by contrast with pictures as in CLIP (Radford et al., arXiv:2103.00020).

The picture tower is only a helper and is thrown away: a small perceptron on the principal components of 32×32 thumbnails.
Pictures of one concept and colour are positives of each other, pictures of the same style more so.
Words are dropped and replaced at random, so that the encoder learns which words carry the meaning.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
WIDTH = 128
LAYERS = 3
COMPONENTS = 192


def text_config(vocabulary, positions):
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
        max_position_embeddings=positions, hidden_act="quick_gelu", projection_dim=WIDTH,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )  # fmt: skip


def read_rows(work):
    return [json.loads(line) for line in (work / "pictures.jsonl").open()]


def thumbnail_features(pictures):
    """(N, 64, 64, 3) bytes → (N, COMPONENTS), principal components with their spread evened out by half."""
    small = pictures.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4), dtype=np.float32).reshape(len(pictures), -1) / 127.5 - 1
    small = torch.from_numpy(small)
    small = small - small.mean(0)
    _, _, basis = torch.pca_lowrank(small, q=COMPONENTS, center=False, niter=2)
    features = small @ basis
    return features / features.std(0).sqrt() / features.std(0)[0].sqrt()


class TextTower(nn.Module):
    """Prompts → unit vectors, from the hidden state at the end-of-text token."""

    def __init__(self, config):
        super().__init__()
        self.model = CLIPTextModel(config)
        nn.init.normal_(self.model.get_input_embeddings().weight, std=0.05)
        self.projection = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, prompts):
        length = max(map(len, prompts))
        end = self.model.config.eos_token_id
        ids = torch.tensor([ids + [end] * (length - len(ids)) for ids in prompts])
        hidden = self.model(input_ids=ids).last_hidden_state  # (B, L, WIDTH)
        ends = torch.tensor([len(ids) - 1 for ids in prompts])
        return F.normalize(self.projection(hidden[torch.arange(len(prompts)), ends]), dim=-1)


class PictureTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(COMPONENTS, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, WIDTH))

    def forward(self, features):
        return F.normalize(self.layers(features * 4), dim=-1)


def disturb(ids, rng, vocabulary):
    """Sometimes puts a random token into a prompt, as if the person had added a word the model does not know."""
    if rng.random() < 0.15 and len(ids) < 30:
        place = int(rng.integers(1, len(ids)))
        return ids[:place] + [int(rng.integers(256, vocabulary - 2))] + ids[place:]
    return ids


@torch.no_grad()
def encode_prompts(model, tokenizer, prompts, batch=256):
    """Prompts → (N, positions, WIDTH) half-precision hidden states, padded as StableDiffusionPipeline pads them."""
    states = []
    for start in range(0, len(prompts), batch):
        ids = tokenizer(prompts[start : start + batch], padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        states.append(model(input_ids=ids).last_hidden_state.half())
    return torch.cat(states)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    tokenizer = CLIPTokenizer.from_pretrained(arguments.work / "tokenizer")
    vocabulary, positions = len(tokenizer), tokenizer.model_max_length
    all_rows = read_rows(arguments.work)
    chosen = [i for i, row in enumerate(all_rows) if row["kind"] != "other"]
    rows = [all_rows[i] for i in chosen]
    features = thumbnail_features(np.load(arguments.work / "pictures.npy")[chosen])
    prompts = [tokenizer(row["captions"], truncation=True, max_length=positions).input_ids for row in rows]
    weights = np.array([row["weight"] for row in rows]) ** 0.6
    weights /= weights.sum()
    meaning = {}
    meanings = np.array([meaning.setdefault((row["concept"], row["colour"]), len(meaning)) for row in rows])
    styles = np.array([row["style"] == "noto" for row in rows])
    members = [np.flatnonzero(meanings == i) for i in range(len(meaning))]

    text, picture = TextTower(text_config(vocabulary, positions)), PictureTower()
    log_scale = nn.Parameter(torch.tensor(2.6))
    parameters = [*text.parameters(), *picture.parameters(), log_scale]
    optimiser = torch.optim.AdamW(parameters, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.02)
    print(f"{sum(p.numel() for p in text.model.parameters()) / 1e6:.2f} M parameters, {len(rows)} pictures, {len(meaning)} meanings", flush=True)

    names = sorted({row["concept"] for row in rows if row["kind"] == "base"})
    base = [i for i, row in enumerate(rows) if row["kind"] == "base"]
    target = torch.tensor([names.index(rows[i]["concept"]) for i in base])

    def retrieval(template):
        """Share of the base pictures whose best and five best names hold the right one."""
        text.eval()
        with torch.no_grad():
            vectors = text(tokenizer([template.format(name) for name in names]).input_ids)
            best = (picture(features[base]) @ vectors.T).topk(5).indices == target[:, None]
        text.train()
        return best[:, 0].float().mean().item(), best.any(1).float().mean().item()

    start = time.process_time()
    for step in range(arguments.steps):
        progress = step / arguments.steps
        rate = min(1, (step + 1) / 60) * (1 if progress < 0.3 else 1 - 0.98 * (progress - 0.3) / 0.7)
        optimiser.param_groups[0]["lr"] = arguments.rate * rate
        half = rng.choice(len(rows), arguments.batch // 2, p=weights)
        batch = np.concatenate([half, [rng.choice(members[meanings[i]]) for i in half]])
        ids = [disturb(prompts[i][rng.integers(len(prompts[i]))], rng, vocabulary) for i in batch]
        seen = features[batch]
        images = picture(seen + torch.randn_like(seen) * features.std(0) * 0.25)
        logits = log_scale.exp().clamp(max=50) * images @ text(ids).T
        same_meaning = meanings[batch][:, None] == meanings[batch][None]
        same_style = styles[batch][:, None] == styles[batch][None]
        positive = torch.from_numpy(same_meaning * (0.15 + 0.85 * same_style)).float()
        positive /= positive.sum(1, keepdim=True)
        loss = -((positive * logits.log_softmax(1)).sum(1) + (positive * logits.T.log_softmax(1)).sum(1)).mean() / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 100 == 99 or step + 1 == arguments.steps:
            first, five = retrieval("{}")
            other, _ = retrieval("picture of a {}")
            minutes = (time.process_time() - start) / 60
            print(f"step {step + 1} loss {loss.item():.3f} retrieval@1 {first:.3f} @5 {five:.3f}, 'picture of a …' @1 {other:.3f}, {minutes:.1f} CPU-minutes", flush=True)
            text.model.save_pretrained(arguments.work / "text_encoder")


if __name__ == "__main__":
    main()
