"""The two further styles: their pictures of the concepts, rendered and turned to other colours as those of `data.py`, and their captions.

Blob is what Google's emoji looked like until 2017, flat is Microsoft's without the third dimension. Both licences (Apache-2.0 and MIT)
allow to ship what is made from them under the licence of this repository.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from captions import Captions
from companions.base import TRAINING
from data import iconify_svgs, read_concepts, read_labels, render_svgs, shrink, write_pictures


@dataclass(frozen=True)
class Style:
    package: str
    named_by: str  # the package that says which emoji has which name
    words: tuple  # in captions, at the end


STYLES = {
    "blob": Style("noto-v1", "noto", ("blob style", "blob emoji", "in blob style")),
    "flat": Style("fluent-emoji-flat", "fluent-emoji-flat", ("flat style", "flat", "in flat style")),
}
SHARE_WITHOUT_WORDS = 0.6  # the adapter alone is enough to ask for the style


class StyleCaptions(Captions):
    def in_style(self, text, style, random):
        if random.random() < SHARE_WITHOUT_WORDS:
            return text
        word = random.choice(STYLES[style].words)
        return f"{text} {word}" if word.startswith("in ") else f"{text}, {word}"


def folder_of(work, style):
    """Where the pictures of a style are, in the format that Scenes reads."""
    return work / "styles" / style


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=TRAINING / "work")
    work, modules = parser.parse_args().work, TRAINING / "node_modules"
    concepts, labels = read_concepts(), read_labels(modules)
    for name, style in STYLES.items():
        folder = folder_of(work, name)
        folder.mkdir(parents=True, exist_ok=True)
        svgs = iconify_svgs(modules, style.package, style.named_by)
        svgs = {code: svg for code, svg in svgs.items() if code in concepts}
        rendered = render_svgs(list(svgs.values()), folder)
        pictures = {code: shrink(pixels) for code, pixels in zip(svgs, rendered) if pixels is not None and pixels[..., 3].any()}
        write_pictures(folder, {name: pictures}, concepts, labels)


if __name__ == "__main__":
    main()
