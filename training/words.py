"""More words: gives a trained text encoder tokens for further words that mean something near to what it can draw.

The candidates are the names of things in WordNet that the tokenizer splits into several tokens; the teacher (`text_encoder.py`)
finds those that are near to the name of a concept. New merges come after all old ones, so the tokens of other texts stay the same.
Only the embeddings of the new tokens are learned, so all states from which the U-Net has learned stay the same. Words can therefore
be added after the training of the U-Net, also several times. An embedding is learned from a few phrases with the word. The targets
are the teacher's vector of the phrase, the nearest concepts, and, if one concept is clearly the nearest, the states of the same
phrase with the known name (much as in textual inversion, Gal et al., arXiv:2208.01618).
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captions import Captions, with_article
from lexicon import Lexicon
from text_encoder import Labels, Student, Teacher, concept_likelihood, text_config
from tokenizer import WORD_END, split, write_tokenizer
from torch import nn
from transformers import CLIPTokenizer

HERE = Path(__file__).parent
PHRASES = ["{}", "{}", "a {}", "a {}", "a {}", "the {}", "a picture of a {}", "{} emoji", "a cute {}", "my {}", "a {}, 3d"]
SURE = 0.4  # from this likelihood on, the nearest concept counts as the meaning of the word


def nearest_names(vectors, teacher, captions):
    """For each vector the similarity to the nearest name of a concept, and that name."""
    names = [name for names in captions.names.values() for name in names]
    similarity, best = (vectors @ teacher(names).T).max(1)
    return similarity, [names[i] for i in best]


def choose(lexicon, teacher, captions, tokenizer, count):
    """Names of things that are near to what can be drawn and are not one token. Near and frequent (in WordNet) names come first."""
    split_words = [lemma for lemma, ids in zip(lexicon.concrete, tokenizer(lexicon.concrete).input_ids) if len(ids) > 3]
    near = concept_likelihood(teacher(split_words), teacher, captions).max(1).values
    worth = {word: value.item() * math.log(2 + lexicon.uses[word]) for word, value in zip(split_words, near)}
    return sorted(worth, key=lambda word: (-worth[word], word))[:count]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--words", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    work = arguments.work
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    start = time.process_time()

    old_tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    captions, teacher, lexicon = Captions(), Teacher(), Lexicon()
    labels = Labels(captions)
    old = Student(text_config(len(old_tokenizer), old_tokenizer.model_max_length), labels)
    old.load_state_dict(torch.load(work / "student.pt"))
    words = choose(lexicon, teacher, captions, old_tokenizer, arguments.words)

    lines = (work / "tokenizer" / "merges.txt").read_text().splitlines()[1:]
    ranks = {tuple(line.split(" ")): i for i, line in enumerate(lines)}
    names = [token for token, _ in sorted(old_tokenizer.get_vocab().items(), key=lambda item: item[1])]
    tokens, specials = dict.fromkeys(names[:-2]), names[-2:]
    for word in words:
        while len(parts := split(word, ranks)) > 1:
            tokens[parts[0] + parts[1]] = None
            ranks[parts[0], parts[1]] = len(ranks)
    tokenizer = write_tokenizer(work / "tokenizer-more", [*tokens, *specials], ranks)
    added = len(tokens) - len(names) + 2
    print(f"{len(words)} words with {added} tokens: {words[:8]} … {words[-8:]}", flush=True)

    student = Student(text_config(len(tokenizer), tokenizer.model_max_length), labels)
    state = old.state_dict()
    key = next(name for name in state if name.endswith("token_embedding.weight"))
    rows = state[key]
    state[key] = torch.cat([rows[:-2], torch.zeros(added, rows.shape[1]), rows[-2:]])
    student.load_state_dict(state)
    student.eval().requires_grad_(False)
    old.eval()
    embedding = student.model.get_input_embeddings()

    phrases = [[form.format(word).replace("a " + word, with_article(word)) for form in PHRASES] for word in words]
    vectors = torch.stack([teacher([texts[i] for texts in phrases]) for i in range(len(PHRASES))], 1)
    likelihood = concept_likelihood(teacher(words), teacher, captions)
    _, nearest = nearest_names(teacher(words), teacher, captions)
    sure = likelihood.max(1).values > SURE
    ids = [tokenizer(texts).input_ids for texts in phrases]
    with torch.no_grad():
        known = torch.stack([old(old_tokenizer([form.format(name).replace("a " + name, with_article(name)) for name in nearest]).input_ids) for form in PHRASES], 1)

    # Each embedding starts as that of the nearest name, or as the mean of the name's tokens if the name has several.
    new = nn.Parameter(torch.zeros(len(words), rows.shape[1]))
    with torch.no_grad():
        for i, name in enumerate(nearest):
            new[i] = embedding.weight[tokenizer(name).input_ids[1:-1]].mean(0)
    places = torch.tensor(tokenizer.convert_tokens_to_ids([word + WORD_END for word in words]))
    start_weight = embedding.weight.clone()
    optimiser = torch.optim.Adam([new], lr=arguments.rate)
    for step in range(arguments.steps):
        optimiser.param_groups[0]["lr"] = arguments.rate * (1 - step / arguments.steps)
        chosen, form = rng.integers(len(words), size=arguments.batch), rng.integers(len(PHRASES), size=arguments.batch)
        embedding._parameters["weight"] = start_weight.index_copy(0, places, new)
        states = student([ids[i][j] for i, j in zip(chosen, form)])
        direction = 1 - F.cosine_similarity(student.projection(states), vectors[chosen, form]).mean()
        near = F.cross_entropy(student.heads["thing"](states), likelihood[chosen])
        same = ((states - known[chosen, form]).square().mean(1) * sure[chosen]).mean()
        loss = direction + 0.5 * near + 2 * same
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 99:
            minutes = (time.process_time() - start) / 60
            print(f"step {step + 1} direction {direction.item():.3f} near {near.item():.3f} same {same.item():.4f}, {minutes:.1f} CPU-minutes", flush=True)
    embedding._parameters["weight"] = nn.Parameter(start_weight.index_copy(0, places, new.detach()), requires_grad=False)
    student.model.save_pretrained(work / "text_encoder-more")
    torch.save(student.state_dict(), work / "student-more.pt")


if __name__ == "__main__":
    main()
