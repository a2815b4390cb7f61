"""Every `curl` command of README.md, as a reader would paste it: only the address is replaced by the served one."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "README.md"
DOCUMENTED = "http://127.0.0.1:8080"


def curl_commands(text: str) -> list[str]:
    """The commands in the shell blocks that start with `curl`, each with the lines that its quotes span."""
    commands, open_command = [], ""
    for line in "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines():
        if open_command or line.startswith("curl "):
            open_command += line + "\n"
            if open_command.count("'") % 2 == 0 and not line.endswith("\\"):
                commands.append(open_command)
                open_command = ""
    return commands


COMMANDS = curl_commands(README.read_text())


def test_the_readme_has_commands_for_chat_stream_and_models():
    assert len(COMMANDS) >= 3
    for needed in ("/v1/chat/completions", '"stream": true', "/v1/models"):
        assert any(needed in command for command in COMMANDS), needed


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_the_command_answers(command: str, url: str, tmp_path: Path):
    assert DOCUMENTED in command
    # What the reader's terminal does not need: quiet, and a failing status for an HTTP error.
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    environment = os.environ | {"CURL_HOME": str(tmp_path)}
    pasted = ["bash", "-c", command.replace(DOCUMENTED, url)]
    run = subprocess.run(pasted, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    check_reply(command, run.stdout)


def check_reply(command: str, reply: str) -> None:
    """The reply is of the kind that the command asks for."""
    if '"stream": true' in command:
        events = [line.removeprefix("data: ") for line in reply.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])
    elif "completions" in command:
        assert json.loads(reply)["choices"][0]["finish_reason"] in ("stop", "length")
    elif "/v1/models" in command:
        assert json.loads(reply)["object"] in ("list", "model")
