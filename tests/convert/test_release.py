import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import convert.hub
from convert import (
    ConversionError,
    ReleaseOptions,
    compare,
    export_moshi,
    load_moshi,
    to_jax,
    to_torch,
)
from convert.__main__ import main
from convert.release import (
    Change,
    check_hashes,
    model_card,
    terms,
    training_summary,
    visible_change,
)
from convert.sources import abstract_params, memory_source
from layers_jax import Precision

BF16 = np.dtype(ml_dtypes.bfloat16)


def source(config, params):
    return memory_source(config, params, abstract_params(config), subject="test")


def test_the_share_that_bfloat16_sees_is_counted(small_lm, random_params):
    base = random_params(small_lm, dtypes=[BF16])
    tuned = jax.tree.map(lambda leaf: leaf.astype(np.float32), base)
    total = sum(leaf.size for leaf in jax.tree.leaves(tuned))
    table, norm = tuned["text_embedding"]["table"], tuned["out_norm"]["scale"]
    table *= 1 + 2**-7 * 1.01  # one or two units in the last place up
    norm *= 1 + 2**-12  # far below half a unit: rounds back
    found = visible_change(source(small_lm, tuned), source(small_lm, base))
    assert found.share == pytest.approx(table.size / total)
    assert found.median_steps in (1, 2)
    same = visible_change(source(small_lm, base), source(small_lm, base))
    assert same == Change(0.0, 0.0)


def test_signs_and_zeros_are_in_order(small_lm, random_params):
    base = random_params(small_lm, dtypes=[BF16])
    tuned = jax.tree.map(np.array, base)
    scale = base["out_norm"]["scale"]
    scale[:3] = [0.0, 1.0, -1.0]
    tuned["out_norm"]["scale"][:3] = np.array([-0.0, -1.0, -1.0]).astype(BF16)
    found = visible_change(source(small_lm, tuned), source(small_lm, base))
    total = sum(leaf.size for leaf in jax.tree.leaves(base))
    assert found.share == pytest.approx(1 / total)  # minus zero is zero
    assert found.median_steps == 255  # and far is far


@pytest.mark.parametrize(("share", "warns"), [(0.049, True), (0.05, False), (0.7, False)])
def test_under_five_percent_it_warns(share, warns):
    text = Change(share, 1.0).text
    assert text.startswith("warning: only") == warns
    assert f"{share:.2%}" in text


@pytest.mark.parametrize(
    ("base", "license_id", "said"),
    [
        ("kyutai/moshiko-pytorch-bf16", "cc-by-4.0", "CC BY 4.0"),
        ("kyutai/moshika-rl-seamless", "cc-by-nc-4.0", "no commercial use"),
        ("nvidia/personaplex-7b-v1", "other", "Licensed by NVIDIA Corporation under the NVIDIA"),
        ("kyutai/personaplex-rl-seamless", "other", "no commercial use. Licensed by NVIDIA"),
        ("someone/else", "other", "have to be stated here"),
        (None, "other", "have to be stated here"),
    ],
)
def test_the_terms_are_those_of_the_base(base, license_id, said):
    assert terms(base)[0] == license_id
    card = model_card(base_model=base, run=None, change=None, title="x")
    assert said in card and f"license: {license_id}\n" in card
    assert (f"base_model: {base}\n" in card) == (base is not None)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"lr": 2e-7, "epochs": 3}')
    rows = [{"epoch": 0, "reward": -0.5, "note": "x"}, {"epoch": 1, "reward": 0.25, "note": "y"}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_card_sums_the_training_up(run):
    text = "\n".join(training_summary(run))
    assert '"lr": 2e-07' in text and "2 logged steps" in text
    assert "| reward | -0.5 | 0.25 |" in text and "note" not in text


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_what_is_no_run_is_refused(name, run):
    (run / name).write_text("{")
    with pytest.raises(ConversionError, match="not a training run"):
        training_summary(run)
    (run / name).unlink()
    with pytest.raises(ConversionError, match="not a training run"):
        training_summary(run)


def test_a_trained_release_gets_its_card_and_its_warning(tiny_checkpoint, run, tmp_path, capsys):
    module, params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    params["out_norm"]["scale"] = params["out_norm"]["scale"] * 1.5
    export_moshi(
        tmp_path / "trained", module.config, params, source=tiny_checkpoint, dtypes="float32"
    )
    arguments = ["--base", str(tiny_checkpoint), "--base-model", "kyutai/moshiko-pytorch-bf16"]
    arguments += ["--run-dir", str(run), "--dtypes", "bfloat16", "--hashes"]
    assert main(["to-torch", str(tmp_path / "trained"), str(tmp_path / "out"), *arguments]) == 0
    assert "warning: only 0.01% of the values differ" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Warning: only 0.01%" in card and "| reward |" in card and "CC BY 4.0" in card
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {BF16}
    to_jax(tmp_path / "out", tmp_path / "jax")  # what SHA256SUMS says is true


def test_a_flipped_bit_is_found_by_the_hash_list(tiny_checkpoint, tmp_path):
    to_torch(tiny_checkpoint, tmp_path / "out", ReleaseOptions(hashes=True))
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    load_moshi(tmp_path / "out")  # nothing else can tell
    with pytest.raises(ConversionError, match=r"model\.safetensors has sha256 .*fetch these files"):
        to_jax(tmp_path / "out", tmp_path / "jax")
    assert not (tmp_path / "jax").exists()
    (tmp_path / "out" / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(ConversionError, match="not a list of sha256"):
        to_jax(tmp_path / "out", tmp_path / "jax")


def test_the_hash_that_a_hub_cache_names_is_checked(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ("0" * 64)).write_bytes(b"other")
    (tmp_path / "x").symlink_to(blobs / ("0" * 64))
    with pytest.raises(ConversionError, match="x has sha256"):
        check_hashes(tmp_path, {"x": tmp_path / "x"})


def test_weights_can_be_split(tiny_checkpoint, tmp_path):
    to_torch(tiny_checkpoint, tmp_path / "out", ReleaseOptions(max_shard_bytes=400_000))
    names = {path.name for path in (tmp_path / "out").glob("model*")}
    assert "model.safetensors.index.json" in names and "model.safetensors" not in names
    assert len(names) > 3
    assert compare(tiny_checkpoint, tmp_path / "out").differences == []


def test_what_is_no_number_is_not_released(tiny_weights, checkpoint_with, tmp_path):
    tensors = {key: value.copy() for key, value in tiny_weights.items()}
    tensors["text_linear.weight"][0, 0] = np.nan
    with pytest.raises(ConversionError, match=r"not finite: text_linear\.weight"):
        to_torch(checkpoint_with(tensors), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_release_is_uploaded_after_it_is_complete(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    uploaded = {}

    class Api:
        def create_repo(self, repository, *, private, exist_ok):
            uploaded["repository"], uploaded["private"] = repository, private

        def upload_folder(self, *, repo_id, folder_path):
            uploaded[repo_id] = {path.name for path in folder_path.iterdir()}

    monkeypatch.setattr(convert.hub, "HfApi", Api)
    arguments = [str(tiny_checkpoint), str(tmp_path / "out"), "--push-to-hub", "me/mine"]
    assert main(["to-torch", *arguments]) == 0
    assert uploaded["private"] is True
    assert {"README.md", "config.json", "model.safetensors"} < uploaded["me/mine"]
    assert "https://huggingface.co/me/mine" in capsys.readouterr().out


def test_an_upload_that_fails_keeps_the_release(tiny_checkpoint, tmp_path):
    arguments = [str(tiny_checkpoint), str(tmp_path / "out"), "--push-to-hub", "me/mine"]
    with pytest.raises(ConversionError, match=r"the hub (refused|cannot be reached)"):
        main(["to-torch", *arguments])  # tests are offline
    assert (tmp_path / "out" / "README.md").is_file()


def test_conditioners_keep_their_format(golden, tmp_path):
    recording = golden("lm_hibiki_like")
    folder = tmp_path / "hibiki"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**recording.config, "model_type": "hibiki"}))
    save_file(recording.weights, folder / "model.safetensors")
    to_torch(folder, tmp_path / "out", ReleaseOptions(dtypes="bfloat16"))
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert any(key.startswith("condition_provider.") for key in back)
    for key, value in back.items():
        assert value.dtype == (np.float32 if key.startswith("condition_provider.") else BF16), key
    shutil.rmtree(folder)
