"""What the embedded model knows, for the web page: writes web/known.json from concepts.tsv, synonyms.tsv and the text
encoder.

    python3 known.py        # needs numpy and safetensors

The file lists the concepts in groups, and for each concept other words for it with the similarity of their encodings in
percent. The page uses them to name the nearest concept for a prompt that contains no name of a concept. `others` are
words of the vocabulary that are spelled almost like a name, but mean something else.
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
MODEL = HERE.parent / "models/emoji"
HEADS = 6
# Words with a smaller cosine similarity to their concept are not listed.
LEAST = 0.62
# Names from this length on may be misspelled by two letters, shorter ones by one letter.
LONG = 8
# Shorter names are not searched for misspelled words.
SHORTEST = 4
# The first group that has one of the words in the names or descriptions of a concept.
GROUPS = [
    ("Fruit and vegetables", {"fruit", "vegetable", "fungus"}),
    ("Food and drink", {"food", "dessert", "drink", "candy"}),
    ("Hearts", {"heart"}),
    ("Faces and people", {"face", "smiley", "hand", "arm", "man", "child", "ghost", "skull", "robot", "alien", "pumpkin", "eyes", "brain", "poo", "mermaid", "snowman"}),
    ("Vehicles", {"vehicle", "travel", "railway", "ship", "aliens"}),
    ("Animals", {"animal", "insect"}),
    ("Plants", {"plant", "flower", "tree"}),
    ("Sky and nature", {"sky", "planet", "nature", "mountain", "sea", "winter", "hot", "water", "electricity", "beach"}),
]
# Faces that are named like their animals, and things whose descriptions name something else.
EXCEPTIONS = {"fire": "Sky and nature", "smiling sun": "Sky and nature", "anchor": "Things", "star": "Sky and nature", "bomb": "Things"}


def main():
    concepts = [line.split("\t") for line in (HERE / "concepts.tsv").read_text().splitlines() if not line.startswith("#") and line]
    things = []
    for emoji, names, *described in concepts:
        names = [name.strip().lstrip("*") for name in names.split(",")]
        things.append({"emoji": emoji, "names": names, "group": group(names, " ".join(described))})
    encoder = Encoder()
    named = [(at, name) for at, thing in enumerate(things) for name in thing["names"]]
    own = {word for _, name in named for word in re.split("[ -]", name)}
    known = encoder.encode(["a " + name for _, name in named])
    for thing in things:
        thing["words"] = {}
    first = {thing["names"][0]: at for at, thing in enumerate(things)}
    for line in (HERE / "synonyms.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, words = line.split("\t")
        words = [word for word in words.split() if word not in own]
        likeness = encoder.encode(["a " + word for word in words]) @ known.T if words else []
        for word, row in zip(words, likeness):
            if row.max() >= LEAST and named[int(row.argmax())][0] == first[name]:
                things[first[name]]["words"][word] = round(100 * float(row.max()))
    listed = own | {word for thing in things for word in thing["words"]}
    words = {token[:-4] for token in encoder.vocabulary if token.endswith("</w>") and token[:-4].isascii() and token[:-4].isalpha()}
    others = sorted(word for word in words - listed if any(alike(word, name) for name in own))
    lines = ",\n".join(json.dumps(thing, ensure_ascii=False) for thing in things)
    (HERE.parent / "web/known.json").write_text(f'{{"things": [\n{lines}\n],\n"others": "{" ".join(others)}"}}\n')


def alike(word, name):
    """Whether the page would take a word for a misspelled name."""
    most = 2 if len(name) >= LONG else 1
    return len(name) >= SHORTEST and abs(len(word) - len(name)) <= most and distance(word, name) <= most


def distance(first, second):
    """The least number of letters that are added, left out, replaced, or exchanged with the next one."""
    rows = [list(range(len(second) + 1))]
    for at, letter in enumerate(first, 1):
        row = [at]
        for to, other in enumerate(second, 1):
            row.append(min(rows[-1][to] + 1, row[-1] + 1, rows[-1][to - 1] + (letter != other)))
            if at > 1 and to > 1 and letter == second[to - 2] and first[at - 2] == other:
                row[-1] = min(row[-1], rows[-2][to - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def group(names, described):
    if names[0] in EXCEPTIONS:
        return EXCEPTIONS[names[0]]
    words = set(described.replace(",", " ").split())
    if "animal" in words or "insect" in words:
        return "Animals"
    words |= {word for name in names for word in name.split()}
    return next((title for title, wanted in GROUPS if words & wanted), "Things")


class Encoder:
    """The text encoder (CLIPTextModel) in numpy. A text's vector is the final state at its end token, with length 1."""

    def __init__(self):
        self.vocabulary = json.loads((MODEL / "tokenizer/vocab.json").read_text())
        merges = (MODEL / "tokenizer/merges.txt").read_text().splitlines()
        pairs = [tuple(line.split()) for line in merges if line and not line.startswith("#")]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.weights = {name: tensor.astype(np.float32) for name, tensor in load_file(MODEL / "text_encoder/model.safetensors").items()}
        config = json.loads((MODEL / "text_encoder/config.json").read_text())
        self.layers, self.begin, self.end = config["num_hidden_layers"], config["bos_token_id"], config["eos_token_id"]

    def encode(self, texts):
        tokens = [[self.begin, *(token for word in text.replace("-", " - ").split() for token in self.split(word)), self.end] for text in texts]
        longest = max(map(len, tokens))
        ends = np.array([len(row) - 1 for row in tokens])
        ids = np.array([row + [self.end] * (longest - len(row)) for row in tokens])
        x = self.weights["text_model.embeddings.token_embedding.weight"][ids]
        x = x + self.weights["text_model.embeddings.position_embedding.weight"][:longest]
        mask = np.triu(np.full((longest, longest), -np.inf, np.float32), 1)
        for layer in range(self.layers):
            name = f"text_model.encoder.layers.{layer}."
            x = x + self.attend(name + "self_attn.", self.norm(name + "layer_norm1", x), mask)
            hidden = self.linear(name + "mlp.fc1", self.norm(name + "layer_norm2", x))
            x = x + self.linear(name + "mlp.fc2", hidden / (1 + np.exp(-1.702 * hidden)))
        final = self.norm("text_model.final_layer_norm", x)[np.arange(len(texts)), ends]
        return final / np.linalg.norm(final, axis=1, keepdims=True)

    def attend(self, name, x, mask):
        heads = lambda part: self.linear(name + part, x).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)
        query, key, value = heads("q_proj"), heads("k_proj"), heads("v_proj")
        scores = query @ key.swapaxes(2, 3) / query.shape[-1] ** 0.5 + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        return self.linear(name + "out_proj", mixed.swapaxes(1, 2).reshape(x.shape))

    def linear(self, name, x):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def split(self, word):
        """The tokens of a word, by byte-pair encoding."""
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            at = min(range(len(pairs)), key=lambda at: self.ranks.get(pairs[at], len(self.ranks)))
            if pairs[at] not in self.ranks:
                break
            parts[at : at + 2] = ["".join(pairs[at])]
        return [self.vocabulary[part] for part in parts]


if __name__ == "__main__":
    main()
