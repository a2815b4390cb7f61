"""Errors as the `openai` Python package raises them, and its retries."""

import json
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

HELLO = [{"role": "user", "content": "Hello"}]


def test_an_unknown_model_is_404_with_a_suggestion(client, model):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model=model + "x", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert model in missing.value.body["message"], "did you mean"


def test_an_unknown_model_cannot_be_retrieved(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("nobody/nothing:1b")
    assert missing.value.code == "model_not_found"


def test_a_bad_value_is_400_and_names_the_field(client, model):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=HELLO, temperature=99)
    assert refused.value.param == "temperature"
    assert refused.value.type == "invalid_request_error"


def test_too_long_a_prompt_is_400(client, model):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=model, prompt="word " * 20_000, max_tokens=1)
    assert refused.value.code == "context_length_exceeded"


def test_no_messages_is_400(client, model):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=[])


def test_malformed_json_an_unknown_route_and_a_wrong_method_have_the_envelope(url):
    cases = [
        ("POST", "/v1/chat/completions", "{not json", 400),
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/models", None, 405),
    ]
    for method, path, body, status in cases:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == status, path
        assert set(json.load(answer)["error"]) >= {"message", "type", "param", "code"}, path
        assert answer.headers["x-request-id"], path
        connection.close()


class Unwilling(BaseHTTPRequestHandler):
    """Refuses the first requests as a busy server does, then passes everything on to Helios."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen += 1
        if self.server.refusals:
            self.answer(self.server.refusals.pop(0), b'{"error": {"message": "busy"}}')
            return
        upstream = HTTPConnection(self.server.upstream, timeout=120)
        upstream.request("POST", self.path, body, {"content-type": "application/json"})
        reply = upstream.getresponse()
        self.answer(reply.status, reply.read())
        upstream.close()

    def answer(self, status: int, body: bytes) -> None:
        """Sends one JSON body."""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if status in (429, 503):
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments) -> None:
        """Keeps the test's output quiet."""


@pytest.fixture
def unwilling(url):
    """A proxy on loopback that refuses twice."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Unwilling)
    server.upstream, server.refusals, server.seen = urlsplit(url).netloc, [503, 429], 0
    thread = threading.Thread(target=server.serve_forever, name="unwilling")
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_client_retries_what_is_busy(unwilling, model):
    address = f"http://127.0.0.1:{unwilling.server_port}/v1"
    patient = OpenAI(base_url=address, api_key="unused", max_retries=2, timeout=120)
    answer = patient.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
    assert answer.usage.completion_tokens == 2
    assert unwilling.seen == 3


def test_the_client_does_not_retry_what_is_its_own_fault(unwilling, model):
    unwilling.refusals = []
    address = f"http://127.0.0.1:{unwilling.server_port}/v1"
    patient = OpenAI(base_url=address, api_key="unused", max_retries=2, timeout=120)
    with pytest.raises(openai.BadRequestError):
        patient.chat.completions.create(model=model, messages=HELLO, temperature=-1)
    assert unwilling.seen == 1
