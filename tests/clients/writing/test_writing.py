"""Who may write models: keys with the flag and no others, by the hub's own client."""

import os
import urllib.error
import urllib.request
import uuid

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

# Above the bound that `cargo xtask test` gives the server for files inside commits.
LARGE = 5 << 20


@pytest.fixture
def writer(registry_url: str) -> HfApi:
    return HfApi(endpoint=registry_url, token=os.environ["HELIOS_TEST_WRITER"])


@pytest.fixture
def reader(registry_url: str) -> HfApi:
    return HfApi(endpoint=registry_url, token=os.environ["HELIOS_TEST_READER"])


@pytest.fixture
def own(registry_url: str) -> HfApi:
    """With the server's own key, which is good for everything but this."""
    return HfApi(endpoint=registry_url, token=os.environ["HELIOS_TEST_KEY"])


@pytest.fixture
def repository(writer: HfApi):
    """A repository of its own, gone after the test."""
    name = f"tests/{uuid.uuid4().hex}"
    writer.create_repo(name)
    yield name
    writer.delete_repo(name)


def read(api: HfApi, repository: str, name: str, folder) -> bytes:
    path = hf_hub_download(repository, name, endpoint=api.endpoint, token=api.token, cache_dir=folder)
    with open(path, "rb") as file:
        return file.read()


def commit(api: HfApi, repository: str, name: str, content: bytes):
    return api.create_commit(repository, [CommitOperationAdd(name, content)], commit_message=name)


def refused(status: int, call, *arguments, **options):
    with pytest.raises(HfHubHTTPError) as refusal:
        call(*arguments, **options)
    assert refusal.value.response.status_code == status, refusal.value


def test_a_key_with_the_flag_writes_and_one_without_reads(writer: HfApi, reader: HfApi, repository: str, tmp_path):
    writer.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=repository)
    assert commit(writer, repository, "b.txt", b"two").oid == reader.model_info(repository).sha
    assert reader.list_repo_files(repository) == ["a.txt", "b.txt"]
    assert read(reader, repository, "b.txt", tmp_path) == b"two"


def test_a_key_without_the_flag_writes_nothing(writer: HfApi, reader: HfApi, own: HfApi, repository: str):
    before = commit(writer, repository, "a.txt", b"one").oid
    for api in [reader, own]:
        refused(403, api.upload_file, path_or_fileobj=b"two", path_in_repo="a.txt", repo_id=repository)
        refused(403, commit, api, repository, "b.txt", b"two")
        refused(403, api.create_repo, f"{repository}-other")
        refused(403, api.create_tag, repository, tag="v1")
        refused(403, api.delete_repo, repository)
    another = HfApi(endpoint=writer.endpoint, token="another")
    refused(401, commit, another, repository, "b.txt", b"two")
    assert writer.model_info(repository).sha == before


def test_a_large_file_needs_the_flag_too(writer: HfApi, reader: HfApi, repository: str, without_xet, tmp_path):
    content = os.urandom(LARGE)
    refused(403, commit, reader, repository, "large.bin", content)
    commit(writer, repository, "large.bin", content)
    assert read(reader, repository, "large.bin", tmp_path) == content


def test_the_address_of_an_upload_opens_nothing_without_a_key(writer: HfApi, reader: HfApi, repository: str):
    address = f"{writer.endpoint}/api/models/{repository}/lfs/{'0' * 64}"
    for key, status in [(None, 401), (reader.token, 403)]:
        request = urllib.request.Request(address, data=b"x", method="PUT")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request)
        assert refusal.value.code == status
