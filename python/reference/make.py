"""Makes the reference fixtures again, or checks that they have not drifted.

    make.py --model MODEL.gguf --llama-cpp DIR --out REPOSITORY [--check]

DIR holds a built llama.cpp as `source/` and `build/`. REPOSITORY is the root of a checkout, into which the fixtures
are written; with `--check` they are made in memory and compared with those there instead. Either way llama.cpp's own
tokenisation is compared with that of the `tokenizers` library on the hostile strings.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from fixture_readme import fixture_readme
from hostile import hostile_strings
from logits import Distance, Fixture, Sequence, score
from tokenizer_strings import tokenizer_strings
from vocabulary import Vocabulary, sha256

HERE = Path(__file__).parent
STRINGS = Path("crates/text/tests/fixtures/smollm2.strings")
STRINGS_COUNT, STRINGS_SEED, STRINGS_LONGEST = 5_600, 2, 160
LOGITS = Path("crates/engine/tests/fixtures")
CROSS_CHECK_COUNT, CROSS_CHECK_SEED = 20_000, 3


class LlamaCpp:
    """A built llama.cpp and the program of `logits.cpp` linked to it."""

    def __init__(self, directory: Path, work: Path):
        self.work, self.bin = work, directory / "build" / "bin"
        self.version = directory.name
        self.program = work / "logits"
        source = directory / "source"
        include = [f"-I{source / 'include'}", f"-I{source / 'ggml' / 'include'}"]
        link = [f"-L{self.bin}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{self.bin}"]
        command = ["c++", "-std=c++17", "-O2", *include, HERE / "logits.cpp", "-o", self.program, *link]
        subprocess.run(command, check=True)

    def quantize(self, model: Path, form: str, name: str) -> Path:
        """`model` with its matrices in another form."""
        out = self.work / f"{name}.gguf"
        say(f"writing {out.name}")
        command = [self.bin / "llama-quantize", "--allow-requantize", model, out, form]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise SystemExit(f"llama-quantize failed:\n{done.stderr[-2000:]}")
        return out

    def tokenize(self, model: Path, strings: list[str]) -> list[list[int]]:
        """llama.cpp's own tokens of each string, special tokens parsed."""
        texts, out = self.work / "strings.bin", self.work / "tokenized.bin"
        data = [text.encode() for text in strings]
        texts.write_bytes(struct.pack("<I", len(data)) + b"".join(struct.pack("<I", len(d)) + d for d in data))
        subprocess.run([self.program, "tokenize", model, texts, out], check=True)
        numbers = memoryview(out.read_bytes()).cast("I")
        ids, at = [], 0
        for _ in strings:
            ids.append(list(numbers[at + 1 : at + 1 + numbers[at]]))
            at += 1 + numbers[at]
        return ids


def say(message: str) -> None:
    print(f"reference: {message}", file=sys.stderr, flush=True)


def read_sequences(vocabulary: Vocabulary) -> list[Sequence]:
    """The texts as tokens."""
    tokenizer = vocabulary.tokenizer()
    texts = sorted((HERE / "texts").glob("*.txt"))
    return [Sequence(path.stem, tokenizer.encode(path.read_text("utf-8")).ids) for path in texts]


def check_tokenisation(llama: LlamaCpp, model: Path, vocabulary: Vocabulary, sequences: list[Sequence]) -> None:
    """Compares llama.cpp's tokenisation with the reference's; fails on any difference that is not explained.

    The explained one: a byte for which the vocabulary has no token is dropped by both, but `tokenizers` then merges
    what stood on its two sides, and llama.cpp does not.
    """
    strings = hostile_strings(CROSS_CHECK_SEED, CROSS_CHECK_COUNT, vocabulary.special())
    tokenizer = vocabulary.tokenizer()
    expected = [encoding.ids for encoding in tokenizer.encode_batch(strings)]
    strings += [(HERE / "texts" / f"{sequence.name}.txt").read_text("utf-8") for sequence in sequences]
    expected += [sequence.ids for sequence in sequences]
    explained = 0
    missing = vocabulary.bytes_without_token()
    for text, ours, theirs in zip(strings, expected, llama.tokenize(model, strings), strict=True):
        if ours == theirs:
            continue
        same_text = tokenizer.decode(ours, skip_special_tokens=False) == tokenizer.decode(theirs, skip_special_tokens=False)
        if not same_text or missing.isdisjoint(text.encode()):
            raise SystemExit(f"llama.cpp tokenises {text!r} as {theirs}, the reference as {ours}")
        explained += 1
    say(f"tokenisation: {len(strings)} strings compared, {explained} differ around bytes without a token")


def make_logits(llama: LlamaCpp, model: Path, sequences: list[Sequence]) -> dict[Path, bytes]:
    """The logits fixtures and their README."""
    bf16 = llama.quantize(model, "BF16", "bf16")
    forms = {
        "smollm2-q4_1": ("as stored", model, llama.quantize(model, "F32", "f32")),
        "smollm2-bf16": ("rounded to bfloat16", bf16, llama.quantize(bf16, "F32", "bf16-f32")),
    }
    tool = f"{llama.version}, float32 weights, activations and KV cache, no flash attention"
    files, distances = {}, []
    for name, (weights, file, float32_file) in forms.items():
        say(f"scoring {name}")
        float32 = score(llama.program, float32_file, sequences, llama.work)
        files[LOGITS / f"{name}.logits"] = Fixture(sha256(model), weights, tool, sequences, float32).pack()
        distances.append(Distance.between(name, score(llama.program, file, sequences, llama.work), float32))
    files[LOGITS / "README.md"] = fixture_readme(llama.version, sequences, distances).encode()
    return files


def drift(path: Path, made: bytes, kept: Path) -> str | None:
    """How a fixture differs from the one that is kept. READMEs hold measurements and are not compared."""
    if path.name == "README.md":
        return None
    if not kept.exists():
        return "is missing"
    if path.suffix == ".logits":
        return Fixture.unpack(kept.read_bytes()).drift_from(Fixture.unpack(made))
    return None if kept.read_bytes() == made else "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    vocabulary = Vocabulary(options.model)
    with tempfile.TemporaryDirectory() as work:
        llama = LlamaCpp(options.llama_cpp.resolve(), Path(work))
        sequences = read_sequences(vocabulary)
        check_tokenisation(llama, options.model, vocabulary, sequences)
        files = make_logits(llama, options.model.resolve(), sequences)
    files[STRINGS] = tokenizer_strings(options.model, STRINGS_COUNT, STRINGS_SEED, STRINGS_LONGEST)
    if not options.check:
        for path, data in files.items():
            (options.out / path).parent.mkdir(parents=True, exist_ok=True)
            (options.out / path).write_bytes(data)
            say(f"wrote {path} ({len(data)} bytes)")
        return
    found = {path: drift(path, data, options.out / path) for path, data in files.items()}
    drifted = [f"{path}: {what}" for path, what in found.items() if what]
    if drifted:
        raise SystemExit("reference: drift\n" + "\n".join(drifted))
    say("no drift")


if __name__ == "__main__":
    main()
