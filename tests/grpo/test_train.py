"""The loop: what a run leaves, how it continues to the same bits, what it refuses."""

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from convert import load_moshi
from grpo.config import GRPOConfig, OptimizerConfig, SamplingConfig
from grpo.data import GroupBatch
from grpo.extract import ExtractConfig, extract
from grpo.tracking import read_metrics
from grpo.train import train
from grpo.trainable import partition
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint

EPOCHS, GROUPS, GENERATIONS, FRAMES, PREFIX = 4, 4, 2, 12, 3
loop = importlib.import_module("grpo.train")  # the package exports the function of this name
CLOCK = ("time/rollout_s", "time/update_s", "rollout_frames_per_s")


class Segments:
    """Groups made up from their number, with the interface of `group_batches`."""

    def __init__(self, groups, frame):
        self.groups, self.frame, self.next_group = groups, frame, 0

    def __next__(self):
        index = np.arange(self.next_group, self.next_group + self.groups)
        self.next_group += self.groups
        frames = 8 + index % 4
        rng = np.random.default_rng(self.next_group)
        return GroupBatch(
            pcm=rng.normal(size=(self.groups, FRAMES * self.frame)).astype(np.float32),
            num_frames=frames.astype(np.int32),
            segment_start_frame=np.full(self.groups, PREFIX, np.int32),
            segment_duration_s=(frames - PREFIX) * 0.001,
            axis=[("pause", "turn")[n % 2] for n in index],
            labels=[{} if n % 2 == 0 else {"user_turn_end_s": 0.001} for n in index],
            index=index,
            segment_id=[f"segment {n}" for n in index],
        )

    def get_state(self):
        return {"next_group": self.next_group}

    def set_state(self, state):
        self.next_group = state["next_group"]


def loudness(probabilities, *, axis, **_):
    """Rewards that differ between rollouts, which those of a random model do not."""
    name = {"pause": "pause_handling", "turn": "turn_taking"}[axis]
    return {name: -np.arange(len(probabilities), dtype=np.float64)}


@pytest.fixture(scope="module")
def programs():
    """Compiled programs by devices and length: runs of this file share them."""
    return {}


@pytest.fixture
def run(small, small_checkpoint, tmp_path, monkeypatch, programs):
    """train() on made-up segments into tmp_path / name."""
    make = loop.make_programs

    def shared(config, mesh, lm, mimi):
        key = mesh.size, config.total_updates
        if key not in programs:
            programs[key] = make(config, mesh, lm, mimi)
        return programs[key]

    def made_up(folder, config, *, groups):
        return Segments(groups, small.frame)

    monkeypatch.setattr(loop, "make_programs", shared)
    monkeypatch.setattr(loop, "group_batches", made_up)
    monkeypatch.setattr(loop, "score_group", loudness)

    def start(name="run", **changes):
        settings: dict[str, Any] = {
            "checkpoint": small_checkpoint,
            "segments": Path("made up"),
            "run_dir": tmp_path / name,
            "epochs": EPOCHS,
            "groups_per_epoch": GROUPS,
            "num_generations": GENERATIONS,
            "devices": 2,
            "precision": "f32",
            "checkpoint_every": 2,
            "sampling": SamplingConfig(audio_top_k=5),
            "optimizer": OptimizerConfig(learning_rate=1e-3),
        }
        return train(GRPOConfig(**(settings | changes)))

    return start


def test_a_run_leaves_config_metrics_checkpoint_and_export(run, small_checkpoint, tmp_path):
    result = run()
    folder = tmp_path / "run"
    assert json.loads((folder / "config.json").read_text())["num_generations"] == GENERATIONS
    assert (folder / "checkpoints" / str(EPOCHS)).is_dir()

    records = read_metrics(result.metrics)
    assert [record["epoch"] for record in records] == list(range(EPOCHS))
    for name in (
        "rewards/pause/pause_handling",
        "rewards/turn/turn_taking",
        "advantage/zero_variance/pause",
        "advantage/nonzero_frac",
        "kl",
        "entropy",
        "ppo_kl",
        "pg_clipfrac",
        "is_ratio/mean",
        "is_ratio/max",
        "is_ratio/min",
        "sampler_trainer/logp_diff_mean",
        "sampler_trainer/logp_diff_max",
        "sampler_trainer/probs_pearson_corr",
        "grad_norm",
        "loss",
        "learning_rate",
        "bf16_visible_change",
        *CLOCK,
    ):
        assert isinstance(records[0][name], float), name
    assert records[0]["sampler_trainer/logp_diff_max"] < 1e-5
    assert records[0]["advantage/nonzero_frac"] == 1
    assert records[0]["rewards/turn/turn_taking"] == -0.5
    assert 0 < records[0]["kl"] < records[-1]["kl"]
    assert records[-1]["learning_rate"] == 0

    base, (moved, frozen) = load_moshi(small_checkpoint)[1], partition(result.params)
    before, before_frozen = partition(base)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(moved), strict=True):
        assert (np.asarray(old) != new).any()
    jax.tree.map(np.testing.assert_array_equal, before_frozen, frozen)

    exported = load_moshi(result.export)[1]
    jax.tree.map(np.testing.assert_array_equal, exported, result.params)


def test_a_killed_run_continues_to_the_same_bits(run, monkeypatch):
    undisturbed = run("whole")
    epoch = loop.run_epoch
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 4:  # epoch 3: epoch 2 is in the metrics but in no checkpoint
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(loop, "run_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(loop, "run_epoch", epoch)
    continued = run("killed")
    jax.tree.map(np.testing.assert_array_equal, continued.params, undisturbed.params)

    def results(result):
        records = read_metrics(result.metrics)
        return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]

    assert results(continued) == results(undisturbed)


def test_a_finished_run_is_left_as_it_is(run, monkeypatch):
    first = run()

    def never(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "run_epoch", never)
    again = run()
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    assert len(read_metrics(again.metrics)) == EPOCHS


def test_groups_that_do_not_divide_are_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match="groups_per_epoch is 3, expected a multiple of the 2"):
        run(groups_per_epoch=3)
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        run(checkpoint=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_number_of_devices_does_not_change_the_run(run):
    two, one = run("two"), run("one", devices=1)
    for a, b in zip(jax.tree.leaves(two.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_real_segments_and_the_embedded_checkpoint(tmp_path):
    extract(conversation_path(), tmp_path / "segments", ExtractConfig(axes=("pause", "turn")))
    config = GRPOConfig(
        checkpoint=embedded_checkpoint(),
        segments=tmp_path / "segments",
        run_dir=tmp_path / "run",
        epochs=1,
        groups_per_epoch=2,
        num_generations=2,
        devices=2,
        prefix_silence_s=0.4,
        bucket_frames=(256,),
        precision="f32",
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    result = train(config)
    (record,) = read_metrics(result.metrics)
    assert record["sampler_trainer/logp_diff_max"] < 1e-4
    assert any(record[name] is not None for name in record if name.startswith("rewards/"))
    exported = load_moshi(result.export)[1]
    jax.tree.map(np.testing.assert_array_equal, exported, result.params)
