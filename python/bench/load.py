"""Loads a sharded safetensors checkpoint with a peer, for `helios bench storage`.

Usage: load.py prepare|safetensors|runai-model-streamer|fastsafetensors|tensorizer FOLDER

Prints one JSON object: seconds and processor seconds of the load alone (imports are over when the clock starts), bytes,
and the peer's version. Nothing is verified: none of the peers can. A peer that maps has one byte of every page touched, so
that all of them end with the bytes in memory. `prepare` writes the form that tensorizer reads.
"""

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE_BYTES = 4096


def shards(folder: Path) -> list[str]:
    """The checkpoint's files in order."""
    return sorted(str(path) for path in folder.glob("model-*.safetensors"))


def touch(tensor) -> int:
    """Reads one byte of each page; returns the tensor's bytes."""
    import torch

    flat = tensor.contiguous().view(torch.uint8).reshape(-1)
    flat[::PAGE_BYTES].max()
    return flat.numel()


def load_safetensors(folder: Path) -> Callable[[], Iterator]:
    """The reference: maps the files."""
    from safetensors import safe_open

    def tensors():
        for path in shards(folder):
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():
                    yield file.get_tensor(name)

    return tensors


def load_runai(folder: Path) -> Callable[[], Iterator]:
    """Reads with many threads into buffers of its own."""
    from runai_model_streamer import SafetensorsStreamer

    def tensors():
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(shards(folder))
            for _, tensor in streamer.get_tensors():
                yield tensor

    return tensors


def load_fastsafetensors(folder: Path) -> Callable[[], Iterator]:
    """Reads files whole, then cuts them into tensors."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def tensors():
        loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
        loader.add_filenames({0: shards(folder)})
        files = loader.copy_files_to_device()
        for name in files.key_to_rank_lidx:
            yield files.get_tensor(name)

    return tensors


def load_tensorizer(folder: Path) -> Callable[[], Iterator]:
    """Reads its own form."""
    from tensorizer import TensorDeserializer

    def tensors():
        with TensorDeserializer(str(folder / "model.tensors"), device="cpu", plaid_mode=False) as file:
            yield from list(file.values())

    return tensors


def prepare(folder: Path) -> None:
    """Writes the checkpoint once more, as tensorizer reads it."""
    from tensorizer import TensorSerializer

    serializer = TensorSerializer(str(folder / "model.tensors"))
    serializer.write_state_dict({str(index): tensor for index, tensor in enumerate(load_safetensors(folder)())})
    serializer.close()


PEERS = {
    "safetensors": load_safetensors,
    "runai-model-streamer": load_runai,
    "fastsafetensors": load_fastsafetensors,
    "tensorizer": load_tensorizer,
}


def processor_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """One load, or the preparation."""
    peer, folder = sys.argv[1], Path(sys.argv[2])
    if peer == "prepare":
        prepare(folder)
        return
    tensors = PEERS[peer](folder)
    import torch  # noqa: F401  (every peer needs it: not part of the load)

    cpu, began = processor_seconds(), time.perf_counter()
    loaded = list(tensors())
    total = sum(touch(tensor) for tensor in loaded)
    seconds, cpu = time.perf_counter() - began, processor_seconds() - cpu
    version = importlib.metadata.version(peer)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "bytes": total, "version": version}))


if __name__ == "__main__":
    main()
