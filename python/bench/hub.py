"""Downloads one repository with huggingface_hub into an empty cache and prints what it took as one line of JSON.

`helios bench storage` runs this in a process of its own with HF_ENDPOINT and HF_HOME set. Importing the client is not
part of the time.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from huggingface_hub import snapshot_download


def processor_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """One download."""
    cpu, began = processor_seconds(), time.perf_counter()
    folder = snapshot_download(sys.argv[1])
    seconds, cpu = time.perf_counter() - began, processor_seconds() - cpu
    total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "bytes": total}))


if __name__ == "__main__":
    main()
