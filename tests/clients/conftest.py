"""What the client tests share: where Helios is served. `cargo xtask test --only clients` starts it and says so."""

import os

# Read by huggingface_hub and transformers when they are imported.
os.environ["HF_ENDPOINT"] = os.environ.get("HELIOS_REGISTRY_URL", "")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
from huggingface_hub import constants
from openai import OpenAI


def told(variable: str) -> str:
    """A value that the harness hands over; its absence is a failure, never a skip."""
    value = os.environ.get(variable)
    if not value:
        pytest.exit(f"{variable} is not set: run `cargo xtask test --only clients`", returncode=2)
    return value


@pytest.fixture(scope="session")
def url() -> str:
    """The served address without a path."""
    return told("HELIOS_URL")


@pytest.fixture(scope="session")
def registry_url() -> str:
    """The address at which the registry's protocols are served."""
    return told("HELIOS_REGISTRY_URL")


@pytest.fixture
def without_xet(monkeypatch):
    """The client as a user of such a server sets it, `HF_HUB_DISABLE_XET=1`: large files go by LFS."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="session")
def model() -> str:
    """The name of the served model."""
    return told("HELIOS_MODEL")


@pytest.fixture(scope="session")
def client(url: str) -> OpenAI:
    """The real client, as a user makes it; errors come back at once instead of after retries."""
    return OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=120)
