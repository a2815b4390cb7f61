"""The default model's tokenizer, built from its GGUF metadata with the PyPI `tokenizers` library.

This is the reference: it shares no code with `crates/text`.
"""

import hashlib
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3


class Vocabulary:
    """The `tokenizer.ggml.*` fields that the reference needs."""

    def __init__(self, model: Path):
        reader = GGUFReader(model)
        field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
        if (field("model"), field("pre")) != ("gpt2", "smollm"):
            raise SystemExit(f"{model}: the reference knows gpt2 with pre-tokenizer smollm only")
        self.tokens: list[str] = field("tokens")
        self.types: list[int] = field("token_type")
        self.merges: list[str] = field("merges")

    def special(self) -> list[str]:
        """The texts of the control tokens, by id."""
        return [text for text, kind in zip(self.tokens, self.types) if kind == CONTROL]

    def bytes_without_token(self) -> set[int]:
        """The bytes that no token stands for: text that has them cannot be written losslessly."""
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        alphabet = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
        tokens = set(self.tokens)
        return {byte for byte, text in alphabet.items() if text not in tokens}

    def tokenizer(self) -> Tokenizer:
        """Digits one by one, then byte level as in GPT-2, then merges; control tokens are special."""
        vocab = {text: token for token, text in enumerate(self.tokens)}
        merges = [tuple(merge.split(" ")) for merge in self.merges]
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in self.special()])
        return tokenizer


def sha256(path: Path) -> str:
    """Digest of a file as lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
