"""The whole command on a few rollouts, and its export in the PyTorch package."""

import json

import numpy as np
import pytest

from convert import load_moshi
from layers_jax import Precision
from mimi_jax import read_audio
from moshi_jax.demo import main, stream_tokens
from moshi_jax.demo.exported import check_export
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint

SMALL = [
    *("--epochs", "1", "--groups-per-epoch", "2", "--num-generations", "2"),
    *("--per-axis", "4"),
]
AXES = ("pause", "turn", "backchannel", "interruption")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert main(["--run-dir", str(folder), *SMALL]) == 0
    return folder


@pytest.mark.slow
def test_the_run_folder_holds_what_the_readme_names(run):
    config = json.loads((run / "config.json").read_text())
    assert (config["epochs"], config["devices"]) == (1, 2)
    assert config["judge"]["kind"] == "embedded" and set(config["axes"]) == set(AXES)
    (epoch,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"rewards/pause/pause_handling", "rewards/turn/judge", "kl"} <= set(epoch)
    assert any((run / "checkpoints").iterdir())
    assert (run / "export" / "model.safetensors").is_file()
    assert (run / "picture.png").read_bytes().startswith(b"\x89PNG")
    heard = {path.name for path in (run / "listen").glob("*.wav")}
    assert heard == {f"{axis}-{name}.wav" for axis in AXES for name in ("base", "tuned")}

    result = json.loads((run / "result.json").read_text())
    assert [row["axis"] for row in result["axes"][:4]] == list(AXES)
    assert all(row["comparison"]["segments"] == 4 for row in result["axes"][:4])
    assert result["updates"] == 2 and result["kl"] > 0
    assert {"segments", "base", "train", "tuned", "export"} <= set(result["seconds"])


@pytest.mark.slow
def test_held_out_segments_are_of_sentences_that_are_not_trained_on(run):
    def said(part):
        lines = (run / "data" / part / "segments" / "manifest.jsonl").read_text().splitlines()
        assert lines
        words = set()
        for path in (run / "data" / part / "conversations").glob("*.json"):
            spoken = json.loads(path.read_text())["alignments"]
            words.add(" ".join(w for w, _, who in spoken if who == "SPEAKER_USER"))
        return words

    assert said("train-0") and said("train-0").isdisjoint(said("held-out"))
    assert not any("wait stop" in text for text in said("train-0"))  # a held-out interruption


@pytest.mark.slow
def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="in use and not by a demo"):
        main(["--run-dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_an_export_with_other_tokens_is_refused():
    folder, pcm = embedded_checkpoint(), read_audio(conversation_path(), sample_rate=24_000)
    _, params = load_moshi(folder, precision=Precision.f32())
    assert check_export(folder, params, folder, pcm[1, :24_000]) == 13
    params["text_head"]["kernel"] = -params["text_head"]["kernel"]
    with pytest.raises(ValueError, match=r"other tokens than the trained .* of 13 frames"):
        check_export(folder, params, folder, pcm[1, :24_000])


@pytest.mark.slow
@pytest.mark.parity
def test_the_export_gives_the_same_tokens_in_pytorch(run, tokens_in_pytorch):
    folder = run / "export"
    pcm = read_audio(conversation_path(), sample_rate=24_000, channels=2)[1, : 24_000 * 5]
    np.testing.assert_array_equal(stream_tokens(folder, None, pcm), tokens_in_pytorch(folder, pcm))
