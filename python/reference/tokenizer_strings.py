"""Writes strings and the token ids that the PyPI `tokenizers` library gives them, for `crates/text/tests`.

    tokenizer_strings.py --model MODEL.gguf --out FILE [--count N] [--seed N] [--longest BYTES]

Layout, little-endian: the magic `HTXTSTR1`; u32 number of strings; then for each string u32 length in bytes, its UTF-8
bytes, u32 number of tokens, and a u16 for each token. Special tokens are parsed.
"""

import argparse
import struct
from pathlib import Path

from hostile import hostile_strings
from vocabulary import Vocabulary

MAGIC = b"HTXTSTR1"


def pack(strings: list[str], ids: list[list[int]]) -> bytes:
    """The file's bytes."""
    parts = [MAGIC, struct.pack("<I", len(strings))]
    for text, tokens in zip(strings, ids, strict=True):
        data = text.encode()
        parts += [struct.pack("<I", len(data)), data, struct.pack(f"<I{len(tokens)}H", len(tokens), *tokens)]
    return b"".join(parts)


def tokenizer_strings(model: Path, count: int, seed: int, longest: int) -> bytes:
    """The fixture for a model: those of `count` strings that have at most `longest` bytes."""
    vocabulary = Vocabulary(model)
    strings = hostile_strings(seed, count, vocabulary.special())
    strings = [text for text in strings if len(text.encode()) <= longest]
    encodings = vocabulary.tokenizer().encode_batch(strings, add_special_tokens=False)
    return pack(strings, [encoding.ids for encoding in encodings])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=int, default=1 << 20)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(tokenizer_strings(options.model, options.count, options.seed, options.longest))


if __name__ == "__main__":
    main()
