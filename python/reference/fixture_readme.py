"""The README beside the logits fixtures: what they hold and what llama.cpp itself reaches on the same positions."""

from logits import Distance, Sequence

TEMPLATE = """\
# Logits fixtures

Made by `cargo xtask reference` (`python/reference/`) with {version}; do not edit. The layout is documented at the top of
`python/reference/logits.py`. Each file holds {positions} teacher-forced positions over the texts in
`python/reference/texts/`: for each the log-sum-exp, the log-probability of the token that follows, and the 64 most
probable tokens.

- `smollm2-q4_1.logits`: the default model's weights as stored (Q4_1, Q8_0, F32), dequantised to float32.
- `smollm2-bf16.logits`: the same weights with every matrix rounded to bfloat16 (to nearest, ties to even; norms stay
  float32), then widened to float32.

Weights, activations and the KV cache are float32, flash attention is off, log-sum-exp is summed in float64.

## What llama.cpp reaches

|difference of log p of the token that follows|, the same program on the unmodified file against float32. The engine
must not be further from float32 than this.

| run | positions | mean | median | p99 | maximum | same most probable token |
|---|---|---|---|---|---|---|
{rows}

In the Q4_1 run activations are rounded to 8 bits in blocks of 32, in the BF16 run to bfloat16; that, not the weights,
is where the difference comes from. By text:

| run and text | positions | mean | median | p99 | maximum | same most probable token |
|---|---|---|---|---|---|---|
{parts}
"""


def fixture_readme(version: str, sequences: list[Sequence], distances: list[Distance]) -> str:
    """The README's text."""
    parts = []
    for distance in distances:
        start = 0
        for sequence in sequences:
            count = len(sequence.ids) - 1
            parts.append(distance.part(f"{distance.name} {sequence.name}", start, count).row())
            start += count
    rows = "\n".join(distance.row() for distance in distances)
    positions = len(distances[0].error)
    return TEMPLATE.format(version=version, positions=positions, rows=rows, parts="\n".join(parts))
