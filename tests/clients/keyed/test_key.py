"""A server that wants a key, through the `openai` Python package."""

import os

import openai
import pytest
from openai import OpenAI

REQUEST = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


def with_key(url: str, key: str) -> OpenAI:
    """A client that carries this key."""
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)


def test_the_right_key_is_let_in(url, model):
    client = with_key(url, os.environ["HELIOS_TEST_KEY"])
    assert client.chat.completions.create(model=model, **REQUEST).usage.completion_tokens == 1


def test_another_key_is_401(url, model):
    with pytest.raises(openai.AuthenticationError) as refused:
        with_key(url, "another").chat.completions.create(model=model, **REQUEST)
    assert refused.value.status_code == 401
    assert refused.value.body["message"]


def test_models_need_the_key_too(url):
    with pytest.raises(openai.AuthenticationError):
        with_key(url, "another").models.list()
