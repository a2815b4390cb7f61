"""The hub's own client against the store: `HF_ENDPOINT` is all that it is told."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer

CATALOGUE = "helios/smollm2"
REVISION = "135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# On either side of the bound that `cargo xtask test` gives the server for files inside commits.
SMALL, LARGE = 3 << 20, 5 << 20
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture
def api(registry_url: str) -> HfApi:
    """The client, pointed at the store."""
    return HfApi(endpoint=registry_url, token="any")


@pytest.fixture
def repository(api: HfApi):
    """A repository of its own, gone after the test."""
    name = f"tests/{uuid.uuid4().hex}"
    api.create_repo(name)
    yield name
    api.delete_repo(name)


class Relay:
    """Stands between the client and the store, hears what is asked, and breaks the first long answer off."""

    def __init__(self, target: str, breaks_after: int | None = None):
        self.target = (urlsplit(target).hostname, urlsplit(target).port)
        self.breaks_after = breaks_after
        self.heard = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            threading.Thread(target=self.hear, args=(client, server), daemon=True).start()
            threading.Thread(target=self.answer, args=(server, client), daemon=True).start()

    def hear(self, client, server):
        while data := receive(client):
            self.heard += data
            server.sendall(data)
        close(server)

    def answer(self, server, client):
        passed = 0
        while data := receive(server):
            passed += len(data)
            if self.breaks_after is not None and passed > self.breaks_after:
                self.breaks_after = None
                close(server)
                break
            client.sendall(data)
        close(client)

    def requests(self, method: str) -> list[str]:
        """Paths asked for by that method."""
        lines = self.heard.decode("latin-1").split("\r\n")
        return [line.split(" ")[1] for line in lines if line.startswith(f"{method} ") and line.endswith("HTTP/1.1")]

    def ranges(self) -> list[str]:
        lines = self.heard.decode("latin-1").lower().split("\r\n")
        return [line.removeprefix("range: ") for line in lines if line.startswith("range: ")]


def receive(side) -> bytes:
    try:
        return side.recv(1 << 16)
    except OSError:
        return b""


def close(side):
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    side.close()


def small_model(folder: Path) -> None:
    """A configuration and a tokenizer, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 32, "vocab_size": 3}))
    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "world": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    )


def test_the_catalogue_model_is_a_repository(api: HfApi):
    info = api.model_info(CATALOGUE, revision=REVISION, files_metadata=True)
    assert info.id == CATALOGUE and info.last_modified is not None and len(info.sha) == 40
    assert [file.rfilename for file in info.siblings] == [GGUF]
    assert info.siblings[0].lfs.sha256 == GGUF_SHA256
    assert api.model_info(CATALOGUE).sha == info.sha, "main is the only tag"
    assert api.model_info(CATALOGUE, revision=info.sha).sha == info.sha
    assert CATALOGUE in [model.id for model in api.list_models(search="smollm2")]
    refs = api.list_repo_refs(CATALOGUE)
    assert [ref.target_commit for ref in refs.branches + refs.tags] == [info.sha, info.sha]
    files = list(api.list_repo_tree(CATALOGUE, revision=REVISION, recursive=True))
    assert [(file.path, file.lfs.sha256) for file in files] == [(GGUF, GGUF_SHA256)]
    assert api.whoami()["name"] == "helios"


def test_a_file_and_a_snapshot_come_byte_for_byte(registry_url: str, tmp_path: Path):
    path = hf_hub_download(CATALOGUE, GGUF, revision=REVISION, endpoint=registry_url, cache_dir=tmp_path / "a")
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == GGUF_SHA256
    folder = snapshot_download(CATALOGUE, revision=REVISION, endpoint=registry_url, cache_dir=tmp_path / "b")
    assert os.listdir(folder) == [GGUF]
    assert os.path.getsize(os.path.join(folder, GGUF)) == os.path.getsize(path)


def test_what_is_in_the_cache_is_asked_about_and_not_fetched_again(api: HfApi, registry_url: str, tmp_path: Path):
    relay = Relay(registry_url)
    first = hf_hub_download(CATALOGUE, GGUF, revision=REVISION, endpoint=relay.url, cache_dir=tmp_path)
    fetched = [path for path in relay.requests("GET") if path.endswith(GGUF)]
    assert len(fetched) == 1
    relay = Relay(registry_url)
    again = hf_hub_download(CATALOGUE, GGUF, revision=REVISION, endpoint=relay.url, cache_dir=tmp_path)
    assert again == first
    assert [path for path in relay.requests("HEAD") if path.endswith(GGUF)], "the entity tag is compared"
    assert not [path for path in relay.requests("GET") if path.endswith(GGUF)]


def test_a_download_that_breaks_off_goes_on_with_a_range(registry_url: str, tmp_path: Path):
    relay = Relay(registry_url, breaks_after=20_000_000)
    path = hf_hub_download(CATALOGUE, GGUF, revision=REVISION, endpoint=relay.url, cache_dir=tmp_path)
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == GGUF_SHA256
    assert relay.breaks_after is None, "it broke off once"
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in relay.ranges()]
    assert any(start > 0 for start in starts), relay.ranges()


def test_what_is_not_there_is_said_in_the_clients_words(api: HfApi, registry_url: str):
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("tests/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(CATALOGUE, revision="no-such-tag")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(CATALOGUE, "no-such-file", revision=REVISION, endpoint=registry_url)
    with pytest.raises(HfHubHTTPError, match="reserved|no name"):
        api.create_repo("v1/models")


def test_a_folder_goes_up_and_comes_back(api: HfApi, repository: str, tmp_path: Path):
    small_model(tmp_path / "up")
    (tmp_path / "up/README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    (tmp_path / "up/sub").mkdir()
    (tmp_path / "up/sub/data.bin").write_bytes(os.urandom(3 << 20))
    commit = api.upload_folder(repo_id=repository, folder_path=tmp_path / "up")
    info = api.model_info(repository)
    assert info.sha == commit.oid and info.library_name == "transformers"
    assert info.config == {"model_type": "llama"}, "what tools ask before they read the file"
    down = Path(snapshot_download(repository, endpoint=api.endpoint, cache_dir=tmp_path / "down"))
    files = [path.relative_to(tmp_path / "up") for path in (tmp_path / "up").rglob("*") if path.is_file()]
    assert len(files) == 5
    for file in files:
        assert (down / file).read_bytes() == (tmp_path / "up" / file).read_bytes(), file
    assert [entry.path for entry in api.list_repo_tree(repository)] == sorted(
        ["README.md", "config.json", "sub", "tokenizer.json", "tokenizer_config.json"]
    )
    found = api.get_paths_info(repository, ["sub/data.bin", "sub", "nothing"])
    assert [entry.path for entry in found] == ["sub/data.bin", "sub"]


def test_commits_keep_add_copy_and_delete(api: HfApi, repository: str):
    first = api.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=repository)
    second = api.create_commit(
        repository,
        [
            CommitOperationAdd("sub/b.txt", b"two"),
            CommitOperationCopy("a.txt", "copy.txt"),
        ],
        commit_message="more",
        parent_commit=first.oid,
    )
    third = api.create_commit(repository, [CommitOperationDelete("sub/")], commit_message="less")

    def names(revision):
        return api.list_repo_files(repository, revision=revision)

    assert names(first.oid) == ["a.txt"]
    assert sorted(names(second.oid)) == ["a.txt", "copy.txt", "sub/b.txt"]
    assert sorted(names("main")) == ["a.txt", "copy.txt"] and third.oid == api.model_info(repository).sha
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(
            repository, [CommitOperationAdd("c.txt", b"three")], commit_message="late", parent_commit=first.oid
        )
    with pytest.raises(EntryNotFoundError):
        api.create_commit(repository, [CommitOperationDelete("nothing.txt")], commit_message="nothing")
    api.create_branch(repository, branch="v1", revision=first.oid)
    api.upload_file(path_or_fileobj=b"four", path_in_repo="d.txt", repo_id=repository, revision="v1")
    assert sorted(names("v1")) == ["a.txt", "d.txt"] and sorted(names("main")) == ["a.txt", "copy.txt"]


def test_a_large_file_goes_by_lfs_and_is_known_afterwards(repository: str, registry_url: str, without_xet):
    content = os.urandom(LARGE)
    digest = hashlib.sha256(content).hexdigest()
    relay = Relay(registry_url)
    api = HfApi(endpoint=relay.url, token="any")
    for name in ["first.bin", "again.bin"]:
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repository)
    files = {entry.path: entry.lfs.sha256 for entry in api.list_repo_tree(repository)}
    assert files == {"first.bin": digest, "again.bin": digest}
    assert relay.heard.count(f"/lfs/{digest} HTTP/1.1".encode()) == 1, "sent once"
    assert relay.heard.count(b".git/info/lfs/objects/batch") == 2


def test_a_small_file_goes_inside_the_commit(repository: str, registry_url: str, without_xet):
    relay = Relay(registry_url)
    api = HfApi(endpoint=relay.url, token="any")
    api.upload_file(path_or_fileobj=os.urandom(SMALL), path_in_repo="small.bin", repo_id=repository)
    assert api.list_repo_files(repository) == ["small.bin"]
    assert b"/lfs/" not in relay.heard


def test_where_xet_is_installed_large_files_go_up_as_open_files_only(api: HfApi, repository: str, tmp_path: Path):
    content = os.urandom(LARGE)
    (tmp_path / "large.bin").write_bytes(content)
    with pytest.raises(ConnectionError, match="xet-write-token"):
        api.upload_file(path_or_fileobj=tmp_path / "large.bin", path_in_repo="path.bin", repo_id=repository)
    with open(tmp_path / "large.bin", "rb") as file:
        api.upload_file(path_or_fileobj=file, path_in_repo="file.bin", repo_id=repository)
    files = {entry.path: entry.lfs.sha256 for entry in api.list_repo_tree(repository)}
    assert files == {"file.bin": hashlib.sha256(content).hexdigest()}


def test_transformers_loads_from_the_store(api: HfApi, repository: str, tmp_path: Path):
    small_model(tmp_path / "up")
    api.upload_folder(repo_id=repository, folder_path=tmp_path / "up", revision="tiny")
    config = AutoConfig.from_pretrained(repository, revision="tiny", cache_dir=tmp_path / "cache")
    assert config.hidden_size == 32
    tokenizer = AutoTokenizer.from_pretrained(repository, revision="tiny", cache_dir=tmp_path / "cache")
    assert tokenizer.encode("hello world") == [0, 1]


def test_what_was_downloaded_is_there_offline(api: HfApi, repository: str, tmp_path: Path):
    small_model(tmp_path / "up")
    api.upload_folder(repo_id=repository, folder_path=tmp_path / "up")
    cache = tmp_path / "cache"
    AutoConfig.from_pretrained(repository, cache_dir=cache)
    AutoTokenizer.from_pretrained(repository, cache_dir=cache)
    script = (
        "import sys; from transformers import AutoConfig, AutoTokenizer; name, cache = sys.argv[1:]; "
        "print(AutoConfig.from_pretrained(name, cache_dir=cache).hidden_size, "
        "AutoTokenizer.from_pretrained(name, cache_dir=cache).encode('hello world'))"
    )
    # Port 1 answers nobody.
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", script, repository, str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("32 [0, 1]")
