"""The element types of ggml with their numbers and block sizes, as the `gguf` package has them.

The fixture holds the version and, for each type, its number in files, its name, and the elements and bytes of a block.
`--check` fails where it would differ.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys

from gguf.constants import GGML_QUANT_SIZES


def make():
    types = [
        {"number": int(kind), "name": kind.name.lower(), "elements": elements, "bytes": size}
        for kind, (elements, size) in sorted(GGML_QUANT_SIZES.items())
    ]
    rows = ",\n  ".join(json.dumps(row) for row in types)
    return f'{{\n "gguf": "{importlib.metadata.version("gguf")}",\n "types": [\n  {rows}\n ]\n}}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    if not args.check:
        args.out.write_text(make())
    elif args.out.read_text() != make():
        sys.exit(f"{args.out} differs from what gguf says now\nhint: cargo xtask reference --write")


if __name__ == "__main__":
    main()
