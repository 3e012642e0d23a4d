"""The loop: what a run leaves, how it continues to the same bits, what it refuses."""

import functools
import importlib
import json
import os
import signal
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from convert import load_moshi
from grpo.collect import ScoringPool
from grpo.config import GRPOConfig, OptimizerConfig, SamplingConfig
from grpo.data import GroupBatch, GroupIterator
from grpo.extract import ExtractConfig, extract
from grpo.tracking import read_metrics
from grpo.train import train
from grpo.trainable import partition
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint
from rewards import STATISTICS
from rewards.asr import AsrConfig, Transcript
from rewards.judge import Handle, JudgeConfig, Verdict

EPOCHS, GROUPS, GENERATIONS, FRAMES, PREFIX = 4, 4, 2, 12, 3
loop = importlib.import_module("grpo.train")  # the package exports the function of this name
CLOCK = (
    *(f"time/{part}_s" for part in ("rollout", "logprobs", "reward_wait", "update")),
    "rollout_frames_per_s",
)


class Segments(GroupIterator):
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
            events=[[] for _ in index],
            index=index,
            segment_id=[f"segment {n}" for n in index],
            user_words=[None for _ in index],
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
        key = mesh, config.total_updates
        if key not in programs:
            programs[key] = make(config, mesh, lm, mimi)
        return programs[key]

    def made_up(folder, config, *, groups, host, num_hosts, codec):
        assert (host, num_hosts) == (0, 1)
        return Segments(groups, small.frame)

    monkeypatch.setattr(loop, "make_programs", shared)
    monkeypatch.setattr(loop, "group_batches", made_up)
    monkeypatch.setattr(loop, "ScoringPool", functools.partial(ScoringPool, scorer=loudness))

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
            "no_judge": True,
            "axes": ("pause", "turn"),
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
    assert (folder / "checkpoints" / str(EPOCHS * GENERATIONS)).is_dir()

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
    epoch = loop.roll_out
    calls = []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:  # epoch 3: epoch 2 is in the metrics but in no checkpoint
            raise KeyboardInterrupt
        return epoch(*arguments, **options)

    monkeypatch.setattr(loop, "roll_out", dies)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(loop, "roll_out", epoch)
    assert_same_run(run("killed"), undisturbed)


def assert_same_run(one, two):
    """Parameters to the last bit, and every metric that is not a time."""
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)

    def results(result):
        records = read_metrics(result.metrics)
        return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]

    assert results(one) == results(two)


@pytest.mark.parametrize("step", [3, 4])
def test_a_notice_to_stop_saves_within_the_step(step, run, monkeypatch, tmp_path):
    """Between two updates of an epoch (step 3 of two an epoch), or between epochs."""
    undisturbed = run("whole")

    class At(loop.StopNotice):
        def at(self, now):
            if now == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().at(now)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopNotice", At)
        with pytest.raises(loop.Preempted, match=f"saved after {step} updates; run the same"):
            run("stopped", checkpoint_every=100)
    assert (tmp_path / "stopped" / "checkpoints" / str(step)).is_dir()
    assert_same_run(run("stopped", checkpoint_every=100), undisturbed)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_continues_on_other_devices(run, monkeypatch):
    """Eight devices in blocks, then two replicas, then eight again, between two updates each."""
    undisturbed = run("whole")

    class After(loop.StopNotice):
        steps = 0

        def at(self, now):
            After.steps += 1
            return After.steps == 2

    blocks = {"devices": 4, "mapping": "shard_map", "mesh_shape": (2, 2)}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopNotice", After)
        for devices in (blocks, {}):
            After.steps = 0
            with pytest.raises(loop.Preempted):
                run("moved", **devices)
    moved = run("moved", **blocks)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, moved.params, undisturbed.params)


def test_gradients_that_stay_unusable_end_the_run(run, monkeypatch, tmp_path):
    rollouts = loop.roll_out

    def broken(*arguments, **options):
        experience, measured, samples = rollouts(*arguments, **options)
        nan = np.full_like(experience.old_logprob, np.nan)
        return experience._replace(old_logprob=nan), measured, samples

    monkeypatch.setattr(loop, "roll_out", broken)
    with pytest.raises(ValueError, match="3 updates in a row had no finite gradient"):
        run(max_skipped_updates=3)
    (record,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert record["update/skipped"] == 1
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_rewards_that_stay_away_end_the_run(run, monkeypatch):
    def nothing(probabilities, *, axis, **_):
        name = {"pause": "pause_handling", "turn": "turn_taking"}[axis]
        return {name: np.full(len(probabilities), np.nan)}

    monkeypatch.setattr(loop, "ScoringPool", functools.partial(ScoringPool, scorer=nothing))
    with pytest.raises(ValueError, match="2 epochs in a row had no valid reward"):
        run(max_skipped_updates=2)


class Judge:
    """Grades everything 1 while `open` says that it is there."""

    name, exhausted, open, cases = "fake", False, True, 0

    def submit(self, cases):
        self.cases += len(cases)
        future = Future()
        future.set_result(Verdict(1.0, "judged"))
        return Handle([future] * len(cases))

    def available(self):
        return self.open

    def close(self):
        self.open = False


@pytest.fixture
def judge(monkeypatch):
    judge = Judge()
    monkeypatch.setattr("grpo.judge_gate.open_judge", lambda config: judge)
    hears = SimpleNamespace(
        name="", version="", transcribe=lambda b: [Transcript("hello")] * len(b)
    )
    monkeypatch.setattr("grpo.judge_gate.open_recognizer", lambda config: hears)
    return judge


JUDGED = {"judge": JudgeConfig(kind="embedded"), "no_judge": False, "epochs": 1}
JUDGED |= {"asr": AsrConfig(kind="packaged")}


def test_a_judge_is_a_component_of_its_axes(run, judge):
    (record,) = read_metrics(run("judged", **JUDGED).metrics)
    assert record["rewards/turn/judge"] == 1.0
    assert "rewards/pause/judge" not in record
    assert judge.cases == GROUPS // 2 * GENERATIONS
    assert not judge.open  # closed with the run


def test_a_judge_that_cannot_go_on_ends_the_run_saved(run, judge, tmp_path):
    judge.exhausted = True
    with pytest.raises(ValueError, match=r"budget is used up.*; saved after epoch 0"):
        run("broke", **JUDGED)
    assert judge.cases == 0
    assert any((tmp_path / "broke" / "checkpoints").iterdir())
    judge.exhausted, judge.open = False, True
    (record,) = read_metrics(run("broke", **JUDGED).metrics)
    assert record["rewards/turn/judge"] == 1.0


@pytest.mark.slow
def test_while_the_judge_is_away_its_axes_teach_nothing(run, judge):
    judge.open = False
    (record,) = read_metrics(run("away", **JUDGED).metrics)
    assert record["rewards/turn/judge"] is None
    assert record["rewards/turn/turn_taking"] is None
    assert record["rewards/pause/pause_handling"] is not None
    assert judge.cases == 0


@pytest.mark.slow
def test_rollouts_that_leave_their_bounds_end_the_run_only_if_asked(run, monkeypatch, tmp_path):
    """The second epoch looks as if every reply had become empty."""
    epochs = []

    def table(groups):
        epochs.append(len(groups))
        values = np.full((len(groups), len(STATISTICS)), np.nan)
        values[:, list(STATISTICS).index("empty")] = float(len(epochs) > 1)
        return values

    monkeypatch.setattr("grpo.epoch.statistics_table", table)
    with pytest.raises(ValueError, match=r"epoch 1 have left their bounds.*--monitors alert"):
        run("hack", epochs=2, monitors="stop")
    assert json.loads((tmp_path / "hack" / "monitors.json").read_text())["empty"]["value"] == 0.0
    first, second = read_metrics(run("hack", epochs=2, monitors="alert").metrics)
    assert (first["monitor/empty"], first["monitor/stops"]) == (0.0, 0.0)
    assert (second["monitor/empty"], second["monitor/stops"]) == (1.0, 1.0)


def test_a_finished_run_is_left_as_it_is(run, monkeypatch):
    first = run()

    def never(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "roll_out", never)
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
        axes=("pause", "turn"),
        no_judge=True,
        no_context=True,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    result = train(config)
    (record,) = read_metrics(result.metrics)
    assert record["sampler_trainer/logp_diff_max"] < 1e-4
    assert any(record[name] is not None for name in record if name.startswith("rewards/"))
    exported = load_moshi(result.export)[1]
    jax.tree.map(np.testing.assert_array_equal, exported, result.params)
