"""Log-probabilities of llama.cpp under teacher forcing, as compact fixtures for `crates/engine/tests`.

Layout of a `.logits` file, little-endian, without padding:

    8 bytes    magic `HLOGITS1`
    32 bytes   SHA-256 of the GGUF file that the weights come from
    u16, text  length and UTF-8 text: the form of the weights
    u16, text  length and UTF-8 text: the tool and its version
    u32        positions in all sequences
    u32        sequences; then for each
      u16, text  length and UTF-8 text: its name
      u32        tokens, n
      n x u16    token ids
      n - 1 positions; the i-th predicts token i + 1 from tokens 0..=i
        f32        log-sum-exp of the logits
        f32        log-probability of token i + 1
        64 x u16   the most probable tokens, best first
        64 x f32   their log-probabilities
"""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"HLOGITS1"
TOP = 64
# What `logits.cpp` writes for a position.
RAW = np.dtype([("id", "<u4"), ("lse", "<f4"), ("logp", "<f4"), ("top", [("id", "<u4"), ("logp", "<f4")], TOP)])
PACKED = np.dtype([("lse", "<f4"), ("logp", "<f4"), ("ids", "<u2", TOP), ("logps", "<f4", TOP)])
# Two machines (other SIMD widths, other thread counts) differ in float32 by less than this.
TOLERANCE = 1e-3


@dataclass
class Sequence:
    """A text as tokens."""

    name: str
    ids: list[int]


@dataclass
class Fixture:
    """The contents of a `.logits` file; `positions` are those of all sequences in order."""

    digest: str
    weights: str
    tool: str
    sequences: list[Sequence]
    positions: np.ndarray

    def pack(self) -> bytes:
        parts = [MAGIC, bytes.fromhex(self.digest), text(self.weights), text(self.tool)]
        parts.append(struct.pack("<II", len(self.positions), len(self.sequences)))
        start = 0
        for sequence in self.sequences:
            count = len(sequence.ids)
            parts += [text(sequence.name), struct.pack(f"<I{count}H", count, *sequence.ids)]
            parts.append(self.positions[start : start + count - 1].tobytes())
            start += count - 1
        return b"".join(parts)

    @staticmethod
    def unpack(data: bytes) -> "Fixture":
        reader = Reader(data)
        if reader.take(8) != MAGIC:
            raise SystemExit("not a logits fixture")
        digest, weights, tool = reader.take(32).hex(), reader.text(), reader.text()
        _, count = struct.unpack("<II", reader.take(8))
        sequences, positions = [], []
        for _ in range(count):
            name = reader.text()
            (tokens,) = struct.unpack("<I", reader.take(4))
            sequences.append(Sequence(name, list(struct.unpack(f"<{tokens}H", reader.take(2 * tokens)))))
            positions.append(np.frombuffer(reader.take((tokens - 1) * PACKED.itemsize), PACKED))
        return Fixture(digest, weights, tool, sequences, np.concatenate(positions))

    def drift_from(self, other: "Fixture") -> str | None:
        """What differs, in words; None where the two agree."""
        for field in ("digest", "weights", "tool", "sequences"):
            if getattr(self, field) != getattr(other, field):
                return f"the {field} differ"
        for field in ("lse", "logp", "logps"):
            distance = float(np.abs(self.positions[field] - other.positions[field]).max())
            if distance > TOLERANCE:
                return f"{field} differs by up to {distance:.6f}, more than {TOLERANCE}"
        return None


class Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes):
        self.data = memoryview(data)

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise SystemExit("the fixture is truncated")
        taken, self.data = self.data[:count], self.data[count:]
        return bytes(taken)

    def text(self) -> str:
        (length,) = struct.unpack("<H", self.take(2))
        return self.take(length).decode()


def text(value: str) -> bytes:
    """Length and UTF-8 bytes."""
    data = value.encode()
    return struct.pack("<H", len(data)) + data


def write_sequences(sequences: list[Sequence], path: Path) -> None:
    """The input of `logits score`."""
    parts = [struct.pack("<I", len(sequences))]
    parts += [struct.pack(f"<I{len(s.ids)}I", len(s.ids), *s.ids) for s in sequences]
    path.write_bytes(b"".join(parts))


def score(program: Path, model: Path, sequences: list[Sequence], work: Path) -> np.ndarray:
    """Every position of every sequence, computed by llama.cpp on `model`."""
    tokens, out = work / "tokens.bin", work / f"{model.stem}.out"
    write_sequences(sequences, tokens)
    subprocess.run([program, "score", model, tokens, out], check=True)
    raw = np.fromfile(out, RAW)
    expected = [token for sequence in sequences for token in sequence.ids[1:]]
    if raw["id"].tolist() != expected:
        raise SystemExit(f"{model}: the scores are not of the texts' tokens")
    packed = np.zeros(len(raw), PACKED)
    packed["lse"], packed["logp"] = raw["lse"], raw["logp"]
    packed["ids"], packed["logps"] = raw["top"]["id"], raw["top"]["logp"]
    return packed


@dataclass
class Distance:
    """How far one run is from float32 on the same positions."""

    name: str
    error: np.ndarray
    same_top: np.ndarray

    @staticmethod
    def between(name: str, run: np.ndarray, float32: np.ndarray) -> "Distance":
        error = np.abs(run["logp"].astype(np.float64) - float32["logp"])
        return Distance(name, error, run["ids"][:, 0] == float32["ids"][:, 0])

    def row(self) -> str:
        """A row of a Markdown table: positions, mean, median, p99, maximum, top-1 agreement."""
        median, p99 = np.quantile(self.error, [0.5, 0.99])
        share = 100 * self.same_top.mean()
        agreement = f"{self.same_top.sum()} of {len(self.same_top)} ({share:.2f} %)"
        figures = f"{self.error.mean():.4f} | {median:.4f} | {p99:.4f} | {self.error.max():.4f}"
        return f"| {self.name} | {len(self.error)} | {figures} | {agreement} |"

    def part(self, name: str, start: int, count: int) -> "Distance":
        end = start + count
        return Distance(name, self.error[start:end], self.same_top[start:end])
