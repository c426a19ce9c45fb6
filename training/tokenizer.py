"""The tokenizer: byte-pair encoding in CLIP's format (Radford et al., arXiv:2103.00020), learned from the captions.

Byte-level like CLIP's, so that no prompt is unknown; `<|endoftext|>` has the highest id because the text encoder finds the end
of the prompt by it; 32 positions because no caption is longer.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

HERE = Path(__file__).parent
VOCABULARY = 2048
POSITIONS = 32
START, END = "<|startoftext|>", "<|endoftext|>"

# Words that people put into prompts though the captions lack them: each should cost one token, not one per letter.
PROMPT_WORDS = (
    "a photo of a picture of an image of the an a with without and on in at wearing holding eating sitting two three small big tiny "
    "huge cute happy sad angry background style best quality blurry low quality deformed ugly beautiful detailed very please"
)


def learn_merges(texts):
    """The byte alphabet and the list of merges, most frequent first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return alphabet, [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work
    rows = [json.loads(line) for line in (work / "pictures.jsonl").open()]
    # The names of the other emoji are learned too: a later model of more concepts can keep this tokenizer.
    texts = [text for row in rows for text in row["captions"]] + [row["concept"] for row in rows] * 3 + [PROMPT_WORDS] * 50
    alphabet, merges = learn_merges(texts)

    # CLIP numbers the bytes first, then the bytes that end a word, the merges, and the two special tokens last.
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    known, kept = set(tokens), []
    for left, right in merges:
        if left + right not in known:
            if len(tokens) == VOCABULARY - 2:
                break
            tokens.append(left + right)
            known.add(left + right)
        kept.append(f"{left} {right}")
    tokens += [START, END]

    folder = work / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(kept) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {**special, "model_max_length": POSITIONS, "do_lower_case": True, "errors": "replace", "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "CLIPTokenizer"}, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")

    # tokenizer.json, the one-file form, comes from the library, so that both forms are sure to agree.
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    lengths = [len(tokenizer(text).input_ids) for text in texts[::97]]
    print(f"{len(tokens)} tokens, {len(kept)} merges; captions have {sum(lengths) / len(lengths):.1f} tokens, at most {max(lengths)}")


if __name__ == "__main__":
    main()
