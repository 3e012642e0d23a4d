import hashlib
import shutil
from pathlib import Path
from unittest import mock

import huggingface_hub.constants
import pytest
from huggingface_hub import errors as hub

import convert.hub
from convert import ConversionError, compare, read_configs, to_jax
from convert.hub import is_hub, local, local_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    for name in ("snapshot_download", "hf_hub_download"):
        function = getattr(convert.hub, name)
        monkeypatch.setattr(
            convert.hub, name, lambda *a, f=function, **k: f(*a, cache_dir=folder, **k)
        )
    return folder


def put(cache, repository, source, *, names=None):
    """A repository in a cache as huggingface_hub lays one out: blobs by hash, links to them."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    for path in source.iterdir():
        if names is None or path.name in names:
            blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copyfile(path, blob)
            (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.mark.parametrize("suffix", ["", "@main", f"@{COMMIT}", "/"])
def test_a_cached_repository_is_a_folder_without_asking_anyone(suffix, cache, tiny_checkpoint):
    snapshot = put(cache, "kyutai/tiny", tiny_checkpoint)
    assert local(f"hf://kyutai/tiny{suffix}") == snapshot
    assert read_configs(f"hf://kyutai/tiny{suffix}").lm == read_configs(tiny_checkpoint).lm
    assert local(Path("hf://kyutai/tiny")) == snapshot  # pathlib takes a slash away


def test_a_repository_converts_as_a_folder_does(cache, tiny_checkpoint, tmp_path):
    put(cache, "kyutai/tiny", tiny_checkpoint)
    to_jax("hf://kyutai/tiny", tmp_path / "jax")
    assert compare(tiny_checkpoint, tmp_path / "jax").differences == []


def test_a_config_may_name_files_of_other_repositories(cache, tiny_checkpoint, tmp_path):
    import json

    put(cache, "kyutai/codec", tiny_checkpoint, names={"tokenizer-tiny-mimi.safetensors"})
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "tokenizer-tiny-mimi.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["mimi_name"] = "hf://kyutai/codec/tokenizer-tiny-mimi.safetensors"
    (folder / "config.json").write_text(json.dumps(config))
    found = read_configs(folder)
    assert found.file_name("mimi") == "tokenizer-tiny-mimi.safetensors"
    to_jax(folder, tmp_path / "jax")
    written = json.loads((tmp_path / "jax" / "config.json").read_text())
    assert written["mimi_name"] == "tokenizer-tiny-mimi.safetensors"
    assert compare(tiny_checkpoint, tmp_path / "jax").differences == []


def test_a_name_with_an_at_sign_is_a_file(cache, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mimi-pytorch-e351c8d8@125.safetensors").write_bytes(b"x")
    snapshot = put(cache, "kyutai/stt", tmp_path / "x")
    name = "mimi-pytorch-e351c8d8@125.safetensors"
    assert local_file(f"hf://kyutai/stt/{name}") == snapshot / name


@pytest.mark.parametrize("source", ["hf://kyutai", "hf://a/b/c", "hf://a/b@", "hf://"])
def test_what_is_no_repository_is_said(source):
    assert is_hub(source)
    with pytest.raises(ConversionError, match="expected hf://ORG/NAME"):
        local(source)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub.GatedRepoError, r"accept its terms at https://huggingface\.co/nvidia/x"),
        (hub.RepositoryNotFoundError, r"no such repository, or a private one"),
        (hub.RevisionNotFoundError, r"has no revision 'v9'"),
        (hub.HfHubHTTPError, "the hub (cannot be reached|is out of reach)"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(error, message, cache, monkeypatch):
    asked = []

    def download(*args, local_files_only, **options):
        asked.append(local_files_only)
        if local_files_only:
            raise hub.LocalEntryNotFoundError("not here")
        raise error("of the hub", response=mock.MagicMock(status_code=403))

    monkeypatch.setattr(convert.hub, "snapshot_download", download)
    with pytest.raises(ConversionError, match=message) as caught:
        read_configs("hf://nvidia/x@v9")
    assert asked == [True, False]  # the cache is asked first
    assert "\n" not in str(caught.value)


def test_without_network_and_cache_it_says_so(cache):
    with pytest.raises(ConversionError, match="not in the local cache"):
        local("hf://kyutai/gone")
    with pytest.raises(ConversionError, match="not in the local cache"):
        local_file("hf://kyutai/gone/x.safetensors")


def test_a_cache_without_the_weights_is_not_enough(cache, tiny_checkpoint):
    put(cache, "kyutai/tiny", tiny_checkpoint, names={"config.json"})
    with pytest.raises(ConversionError, match="not in the local cache"):
        local("hf://kyutai/tiny")
