"""What `accelerate estimate-memory` says of small models of every family, served by Helios as the hub.

For each model: tensors as `transformers` names them, zeros in one safetensors file, uploaded through the hub client;
then the real tool is run with `HF_ENDPOINT` at Helios. The fixture holds configurations, tensor shapes, the tool's
bytes for each precision, what it printed, and the versions. `--check` fails where the fixture would differ.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

PACKAGES = ["accelerate", "huggingface_hub", "safetensors", "torch", "transformers"]
PRECISIONS = ["float32", "float16", "int8", "int4"]
SMALL = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
MODELS = {
    "llama-tied": {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "vocab_size": 320, "tie_word_embeddings": True},
    "llama-untied": {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "vocab_size": 320, "tie_word_embeddings": False},
    "smollm2": {
        "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 1024, "tie_word_embeddings": True,
    },
    "large-vocabulary": {"model_type": "llama", **SMALL, "num_key_value_heads": 4, "vocab_size": 8192, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 320, "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "vocab_size": 320, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "head_dim": 48, "vocab_size": 320, "tie_word_embeddings": False},
    "gemma3": {"model_type": "gemma3_text", **SMALL, "num_hidden_layers": 7, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 320, "sliding_window": 512},
    "gemma3-short": {"model_type": "gemma3_text", **SMALL, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 320, "sliding_window": 512},
}


def tensors(config):
    """Names and shapes of a checkpoint of that configuration; a tied head is not stored."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {key: value for key, value in config.items() if key != "model_type"}
    built = AutoConfig.for_model(config["model_type"], **options)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(built)
    tied = built.tie_word_embeddings
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {name: shape for name, shape in shapes.items() if not (tied and name == "lm_head.weight")}


def write_model(folder, config, shapes):
    import numpy
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: numpy.zeros(shape, "float16") for name, shape in shapes.items()}, folder / "model.safetensors")


def publish(endpoint, name, folder):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=os.environ.get("HF_TOKEN", "unused"))
    api.create_repo(name, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder)


def ask(endpoint, name):
    """The tool's own table, and the bytes behind it."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": tempfile.mkdtemp(), "PYTHONWARNINGS": "ignore"}
    words = ["estimate-memory", name, "--library_name", "transformers"]
    command = [str(pathlib.Path(sys.executable).parent / "accelerate"), *words]
    table = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    script = (
        "import json, sys; from accelerate.commands.estimate import *; "
        "print(json.dumps(gather_data(estimate_command_parser().parse_args(sys.argv[2:]))))"
    )
    run = [sys.executable, "-c", script, *words]
    lines = subprocess.run(run, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()
    rows = [(row[0], {"largest_layer": row[1], "total": row[2]}) for row in json.loads(lines[-1])]
    printed = [line for line in table.splitlines() if any(precision in line for precision in PRECISIONS)]
    return dict(rows), printed


def make(endpoint):
    models = []
    for name, config in MODELS.items():
        shapes = tensors(config)
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch, name)
            write_model(folder, config, shapes)
            publish(endpoint, f"reference/{name}", folder)
        figures, printed = ask(endpoint, f"reference/{name}")
        models.append({"name": name, "config": config, "tensors": shapes, "bytes": figures, "printed": printed})
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"versions": versions, "models": models}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="where Helios answers the hub's protocol")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    text = json.dumps(make(args.endpoint), indent=1) + "\n"
    if not args.check:
        args.out.write_text(text)
    elif args.out.read_text() != text:
        sys.exit(f"{args.out} differs from what accelerate says now\nhint: cargo xtask reference --write")


if __name__ == "__main__":
    main()
