"""Empty stand-ins for the CUDA libraries that PyPI's torch links against, so that it imports without 4 GB of them.

The reference asks torch for shapes on its `meta` device only: no CUDA function is ever called. The loader, though,
wants every library and every symbol, so each missing library becomes a shared object that defines those symbols and
does nothing. Needs `gcc` and `nm`. CUDA's own runtime is the real one, because torch registers kernels with it on load.
"""

import collections
import pathlib
import re
import subprocess
import sysconfig
import tempfile

# Symbols without a version belong to these, by prefix; the others name their library as the version.
UNVERSIONED = {
    "cuFile": "libcufile.so.0",
    "cudnn": "libcudnn.so.9",
    "cusparseLt": "libcusparseLt.so.0",
    "nccl": "libnccl.so.2",
}
VERSION_NAMES = {"NVSHMEM": "libnvshmem_host.so.3"}
REAL = {"libcudart.so", "libcupti.so"}


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def needed_libraries(files):
    """The CUDA libraries that `files` name and that are not there."""
    names = set()
    for file in files:
        names.update(re.findall(r"NEEDED.*\[(lib(?:cu|nccl|nvrtc|nvshmem).*?)\]", run("readelf", "-d", str(file))))
    return {name for name in names if name.split(".so")[0] + ".so" not in REAL and name != "libcuda.so.1"}


def wanted_symbols(files):
    """By library and version (empty for none): the symbols that `files` expect of it."""
    wanted = collections.defaultdict(set)
    for file in files:
        for line in run("nm", "-D", "--undefined-only", str(file)).splitlines():
            symbol, _, version = line.split()[-1].partition("@")
            library = VERSION_NAMES.get(version) or (version if version.startswith("lib") else None)
            if not version:
                library = next((lib for prefix, lib in UNVERSIONED.items() if symbol.startswith(prefix)), None)
            if library:
                wanted[library, version].add(symbol)
    return wanted


def build(folder, library, symbols):
    """Writes one library; `symbols` are by version."""
    with tempfile.TemporaryDirectory() as scratch:
        source, script = pathlib.Path(scratch, "stub.c"), pathlib.Path(scratch, "stub.map")
        names = sorted({name for group in symbols.values() for name in group})
        source.write_text("".join(f"int {name};\n" for name in names) + "\n")
        groups = {version: group for version, group in symbols.items() if version}
        script.write_text("".join(f"{version} {{ {'; '.join(sorted(group))}; }};\n" for version, group in groups.items()))
        words = ["gcc", "-w", "-shared", "-fPIC", "-o", str(folder / library), f"-Wl,-soname,{library}", str(source)]
        run(*words, *([f"-Wl,--version-script={script}"] if groups else []))


def main():
    site = pathlib.Path(sysconfig.get_paths()["purelib"])
    folder = site / "torch/lib"
    files = [file for file in folder.glob("*.so") if file.is_file()]
    wanted = wanted_symbols(files)
    for library in sorted(needed_libraries(files)):
        build(folder, library, {version: names for (lib, version), names in wanted.items() if lib == library})


if __name__ == "__main__":
    main()
