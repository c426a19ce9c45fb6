"""The tokenizer: byte-pair encoding in CLIP's format (Radford et al., arXiv:2103.00020), in which common English words are one token.

The embedding of a word that is one token starts with the word's meaning by the teacher (`text_encoder.py`), so many words should be
tokens. At first, merges for the parts of rare words are learned as usual (Sennrich et al., arXiv:1508.07909). Then further merges
make each word of a list one token, the most useful words first. Later merges never split tokens of earlier merges.
As in CLIP, the basic tokens are bytes, so every prompt has tokens. `<|endoftext|>` has the highest id, by which the text encoder
finds the end of the prompt. There are 32 positions, because no caption is longer.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

from captions import Captions
from lexicon import Lexicon
from scenes import Scenes
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

HERE = Path(__file__).parent
VOCABULARY = 18432
PIECES = 3072  # tokens learned by frequency, before whole words are added
POSITIONS = 32
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
MOST_COMMON = 4000


def caption_words(work):
    """Every word that captions use, and the plurals."""
    scenes, captions, rng = Scenes(work), Captions(), random.Random(0)
    words = {}
    for _ in range(20000):
        for word in captions.caption(scenes.draw(rng), rng).replace(",", " ").replace("-", " ").split():
            words[word] = words.get(word, 0) + 1
    return [word for word in sorted(words, key=lambda word: (-words[word], word)) if word.isalpha() and word.isascii()]


def ranked_words(work):
    """The words that should be one token: first those of captions, then common words, living things and food, and others."""
    lexicon = Lexicon()
    natural, useful = set(lexicon.natural), set(lexicon.concrete) | set(lexicon.adjectives)
    rest = sorted(lexicon.common[MOST_COMMON:], key=lambda word: 0 if word in natural else 1 if word in useful else 2)
    return list(dict.fromkeys(caption_words(work) + lexicon.common[:MOST_COMMON] + rest))


def learn_pieces(words):
    """Merges by frequency, which falls with the rank as in natural text (Zipf's law)."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=WORD_END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=alphabet, end_of_word_suffix=WORD_END, show_progress=False)
    tokenizer.train_from_iterator((word for rank, word in enumerate(words) for _ in range(1 + 4000 // (rank + 20))), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def split(word, ranks):
    """Byte-pair encoding of one word."""
    parts = [*word[:-1], word[-1] + WORD_END]
    while len(parts) > 1:
        pairs = [ranks.get(pair, len(ranks)) for pair in zip(parts, parts[1:])]
        best = min(pairs)
        if best == len(ranks):
            break
        place = pairs.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def write_tokenizer(folder, names, ranks):
    """The files of a CLIPTokenizer: `names` by number, `ranks` the merges in their order."""
    shutil.rmtree(folder, ignore_errors=True)  # an old tokenizer.json would be read instead of the new files
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(names)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in ranks) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {**special, "model_max_length": POSITIONS, "do_lower_case": True, "errors": "replace", "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "CLIPTokenizer"}, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")

    # tokenizer.json, the one-file form, comes from the library, so that both forms are sure to agree.
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work

    # CLIP numbers the bytes first, then the bytes that end a word, the merges, and the two special tokens last.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(byte + WORD_END for byte in alphabet)])
    ranks = {}

    def add(left, right):
        tokens[left + right] = None
        ranks[left, right] = len(ranks)

    words = ranked_words(work)
    for left, right in learn_pieces(words):
        add(left, right)
    whole = 0
    for word in words:
        if len(tokens) + len(split(word, ranks)) - 1 > VOCABULARY - 2:
            break
        while len(parts := split(word, ranks)) > 1:
            add(*parts[:2])
        whole += 1
    names = [*tokens, START, END]

    tokenizer = write_tokenizer(work / "tokenizer", names, ranks)
    single = sum(len(tokenizer(word).input_ids) == 3 for word in words[:whole])
    print(f"{len(names)} tokens, {len(ranks)} merges; {single} of the first {whole} words are one token")


if __name__ == "__main__":
    main()
