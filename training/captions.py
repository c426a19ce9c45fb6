"""Describes scenes in words, as people might. One grammar makes the captions of all training steps."""

import json
from pathlib import Path

from data import COLOUR_WORDS, code_points, read_concepts

HERE = Path(__file__).parent

STYLES = {
    "noto": ["noto style", "noto", "noto emoji", "in noto style"],
    "fluent": ["fluent 3d style", "fluent 3d", "3d", "3d render", "in fluent 3d style"],
}
# A prompt without a style word should mean one thing most of the time: two pictures that differ in pose would blend.
SHARE_WITHOUT_STYLE = {"noto": 0.15, "fluent": 0.5}

KINDS = ["picture", "drawing", "emoji", "image", "photo", "icon", "illustration", "painting", "render", "sticker"]
ADJECTIVES = ["cute", "nice", "beautiful", "funny", "lovely", "simple", "single", "shiny", "pretty"]
NUMBERS = {2: ["two", "two", "2", "a pair of", "a couple of"], 3: ["three", "three", "3"], 4: ["four", "four", "4"]}
IRREGULAR = {"mouse": "mice", "wolf": "wolves", "leaf": "leaves", "tomato": "tomatoes", "potato": "potatoes", "cherry": "cherries", "man": "men"}
UNCHANGED = {"fish", "sheep", "deer", "squid", "corn", "sushi", "broccoli", "popcorn"}


def held_out_words():
    """Words that no caption contains, so that the evaluation can ask with words that were not part of the training."""
    return set((HERE / "held_out.txt").read_text().split())


def words_of(text):
    return set(text.lower().replace("-", " ").replace("_", " ").split())


def read_keywords(modules, concepts):
    """Main name of a concept → further words for it from emojilib. Words for more than two concepts and held out words are left out."""
    library = json.loads((modules / "emojilib/dist/emoji-en-US.json").read_text())
    found = {}
    for emoji, keywords in library.items():
        if code_points(emoji) in concepts:
            words = [word.replace("_", " ").lower() for word in keywords]
            found[code_points(emoji)] = [word for word in words if len(word) > 2 and word.replace(" ", "").replace("-", "").isalpha()]
    uses = {}
    for words in found.values():
        for word in words:
            uses[word] = uses.get(word, 0) + 1
    names = {name for concept in concepts.values() for name in concept["names"]}
    held = held_out_words()
    return {
        concepts[code]["names"][0]: [word for word in words if uses[word] <= 2 and word not in names and not words_of(word) & (held | COLOUR_WORDS)]
        for code, words in found.items()
    }


def with_article(text):
    last = text.split()[-1]
    if is_plural(text) and " of " not in text:
        return text
    return ("an " if text[0] in "aeiou" and not last.startswith("uni") else "a ") + text


def is_plural(name):
    return name.endswith("s") and not name.endswith(("ss", "us", "bus", "lens", "atlas"))


def plural(name):
    for joint in (" of ", " with ", " in "):
        if joint in name:
            first, rest = name.split(joint, 1)
            return plural(first) + joint + rest
    *before, last = name.split()
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last in UNCHANGED or is_plural(last):
        pass
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


class Captions:
    def __init__(self, modules=HERE / "node_modules"):
        concepts = read_concepts()
        self.names = {concept["names"][0]: concept["names"] for concept in concepts.values()}
        self.descriptions = {concept["names"][0]: concept["descriptions"] for concept in concepts.values()}
        self.keywords = read_keywords(modules, concepts)
        held = held_out_words()
        for name in self.names:
            assert not any(words_of(text) & held for text in self.names[name] + self.descriptions[name]), f"{name} has a word that is held out"

    def caption(self, scene, random):
        """One of the texts with which a person may ask for the scene."""
        text = getattr(self, scene.layout.caption)(scene, random)
        if scene.background:
            text = self.on_background(text, scene.background, random)
        return self.in_style(text, scene.style, random)

    def name(self, thing, random, main=0.5):
        """A name of the thing, after its color if the picture was recolored."""
        names = self.names[thing.concept]
        if thing.colour:
            names = [name for name in names if not words_of(name) & COLOUR_WORDS]
        name = names[0] if random.random() < main else random.choice(names)
        return f"{thing.colour} {name}" if thing.colour else name

    def whole(self, scene, random):
        thing = scene.things[0]
        concept, plain = thing.concept, self.name(thing, random)
        article, kind, adjective = with_article(plain), random.choice(KINDS), random.choice(ADJECTIVES)
        forms = [
            (5, plain), (6, article), (2, f"the {plain}"), (0.7, f"one {plain}"), (1.5, f"{plain} emoji"),
            (2, f"{with_article(kind)} of {article}"), (0.7, f"{kind} of {plain}"), (0.7, f"the {kind} of the {plain}"),
            (2, with_article(f"{adjective} {plain}")), (0.7, f"{adjective} {plain}"), (0.5, f"{with_article(kind)} of {with_article(f'{adjective} {plain}')}"),
            (0.4, f"draw {article}"), (0.4, f"show me {article}"), (0.4, f"i want {article}, please"), (0.4, f"{article} on a white background"),
            (0.3, f"{article}, high quality"), (0.3, f"{plain}, {adjective}"), (0.3, f"this is {article}"), (0.3, f"here is my {plain}"),
            (0.7, with_article(f"{random.choice(['big', 'huge', 'large'])} {plain}")),
        ]  # fmt: skip
        descriptions = self.descriptions[concept]
        if not thing.colour:
            forms += [(2, f"{plain}, {', '.join(random.sample(descriptions, random.randint(1, len(descriptions))))}")]
            forms += [(1, f"{random.choice(descriptions)}, {plain}")]
            if self.keywords.get(concept):
                word = random.choice(self.keywords[concept])
                forms += [(1.5, word), (1, f"{plain}, {word}"), (0.5, with_article(word))]
        return random.choices([text for _, text in forms], [weight for weight, _ in forms])[0]

    def small(self, scene, random):
        text = f"{random.choice(['small', 'small', 'tiny', 'little'])} {self.name(scene.things[0], random)}"
        text = with_article(text) if random.random() < 0.7 else text
        return f"{text} {random.choice([f'on the {scene.layout.place}', f'at the {scene.layout.place}'])}" if scene.layout.place else text

    def pair(self, scene, random):
        first, second = (self.name(thing, random, main=0.7) for thing in scene.things)
        if random.random() < 0.75:
            first, second = with_article(first), with_article(second)
        joint = random.choice(["and", "and", "and", "and", "next to", "beside", "with", "to the left of"])
        text = f"{first} {joint} {second}"
        return f"{text} side by side" if joint == "and" and random.random() < 0.1 else self.as_picture(text, random)

    def stack(self, scene, random):
        top, bottom = (with_article(self.name(thing, random, main=0.7)) for thing in scene.things)
        return random.choice([f"{top} above {bottom}", f"{top} over {bottom}", f"{top} on top of {bottom}", f"{bottom} below {top}", f"{bottom} under {top}"])

    def several(self, scene, random):
        thing = scene.things[0]
        return self.as_picture(f"{random.choice(NUMBERS[len(scene.layout.boxes)])} {plural(self.name(thing, random, main=0.7))}", random)

    def as_picture(self, text, random):
        return f"{with_article(random.choice(KINDS))} of {text}" if random.random() < 0.1 else text

    def on_background(self, text, colour, random):
        forms = [f"on a {colour} background", f"on a {colour} background", f"on {colour} background", f"with a {colour} background", f"in front of a {colour} background", f"on {colour}"]
        return random.choice([*(f"{text} {form}" for form in forms), f"{text}, {colour} background"]).replace(" a orange", " an orange")

    def in_style(self, text, style, random):
        if random.random() < SHARE_WITHOUT_STYLE[style]:
            return text
        word = random.choice(STYLES[style])
        if word.startswith("in "):
            return f"{text} {word}"
        return f"{text}, {word}" if random.random() < 0.8 else f"{word} {text}"
