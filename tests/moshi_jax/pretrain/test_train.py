"""A run: it learns, goes on where it was bit for bit, stops when it should, and is exported."""

import json
import os
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest

import moshi_jax.pretrain.train as module
from convert import load_moshi
from grpo.config import LoraTraining, OptimizerConfig
from grpo.interrupt import Preempted
from grpo.tracking import RunTracker, read_metrics
from moshi_jax.pretrain import PretrainConfig, pretrain
from moshi_jax.pretrain.tokens import FORMAT


@pytest.fixture(scope="module")
def config(checkpoint, tokens, tmp_path_factory):
    return PretrainConfig(
        checkpoint=checkpoint,
        data=tokens,
        eval_data=tokens,
        run_dir=tmp_path_factory.mktemp("run") / "whole",
        steps=12,
        batch=4,
        cut_frames=10,
        devices=2,
        precision="f32",
        user_weight=0.5,
        log_every=2,
        eval_every=6,
        checkpoint_every=4,
        optimizer=OptimizerConfig(learning_rate=1e-2, clip_norm=1.0, warmup_updates=2),
    )


@pytest.fixture(scope="module")
def whole(config):
    return pretrain(config)


def lines(config):
    return read_metrics(config.run_dir / "metrics.jsonl")


def without_times(records):
    return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in records]


def test_it_learns_and_says_so(config, whole):
    records = lines(config)
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    assert [r["step"] for r in records if "eval/nats/words" in r] == [6, 12]
    assert records[-1]["eval/nats/user"] < records[2]["eval/nats/user"]
    assert records[-1]["learning_rate"] < records[2]["learning_rate"]
    assert without_times([{"step": 12, **whole.metrics}]) == without_times(records[-1:])


def test_the_export_is_what_was_trained_without_the_head(config, whole, small):
    lm, params = load_moshi(config.run_dir / "export")
    assert lm.config == small.lm.config
    jax.tree.map(np.testing.assert_array_equal, params, whole.params)
    for name in ("tokenizer.model", "mimi.safetensors"):
        assert (config.run_dir / "export" / name).is_file()


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def test_a_killed_run_goes_on_bit_for_bit(config, whole, tmp_path, monkeypatch):
    again = replace(config, run_dir=tmp_path / "again")
    log = RunTracker.log

    def die(self, step, metrics):
        log(self, step, metrics)
        if step == 10:
            raise Killed

    monkeypatch.setattr(RunTracker, "log", die)
    with pytest.raises(Killed):
        pretrain(again)
    monkeypatch.setattr(RunTracker, "log", log)
    result = pretrain(again)
    jax.tree.map(np.testing.assert_array_equal, result.params, whole.params)
    assert without_times(lines(again)) == without_times(lines(config))


def test_sigterm_saves_between_two_lines_and_the_run_goes_on(config, whole, tmp_path, monkeypatch):
    stopped = replace(config, run_dir=tmp_path / "stopped")
    batches = module.train_batches

    def signalled(*args, **kwargs):
        for number, batch in enumerate(batches(*args, **kwargs)):
            if number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(module, "train_batches", signalled)
    with pytest.raises(Preempted, match="saved after 5 updates"):
        pretrain(stopped)
    monkeypatch.setattr(module, "train_batches", batches)
    result = pretrain(stopped)
    jax.tree.map(np.testing.assert_array_equal, result.params, whole.params)
    assert without_times(lines(stopped)) == without_times(lines(config))


def test_divergence_ends_the_run_with_one_error(config, tmp_path):
    optimizer = OptimizerConfig(learning_rate=30.0, clip_norm=1e6)
    wild = replace(config, run_dir=tmp_path / "wild", optimizer=optimizer)
    with pytest.raises(ValueError, match=r"^diverged: .* lower --optimizer.learning-rate"):
        pretrain(wild)
    assert not (wild.run_dir / "export").exists()


def test_other_settings_do_not_continue_a_run(config, whole):
    with pytest.raises(ValueError, match=r"other settings \(batch\)"):
        pretrain(replace(config, batch=8))


def test_tokens_of_another_codec_are_refused(config, tokens, tmp_path):
    other = tmp_path / "tokens"
    other.mkdir()
    for path in tokens.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    values = json.loads((other / FORMAT).read_text())
    (other / FORMAT).write_text(json.dumps(values | {"codec": 1}))
    with pytest.raises(ValueError, match=r"tokens of another checkpoint .codec 1 instead of"):
        pretrain(replace(config, data=other, run_dir=tmp_path / "run"))


def test_a_batch_that_the_devices_do_not_divide_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="batch is 5, expected a multiple of the 2 devices"):
        pretrain(replace(config, batch=5, run_dir=tmp_path / "run"))


def test_adapters_are_exported_added_in_and_on_their_own(config, tmp_path):
    lora = LoraTraining(rank=2, targets=("attention", "mlp", "head"))
    tuned = replace(config, run_dir=tmp_path / "lora", steps=4, lora=lora)
    result = pretrain(tuned)
    lm, params = load_moshi(tuned.run_dir / "export")
    jax.tree.map(np.testing.assert_array_equal, params, result.params)
    assert lm.config.lora is None
    base = load_moshi(config.checkpoint)[1]
    same = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (jax.tree_util.keystr(path), np.array_equal(a, b)), base, params
    )
    found = dict(jax.tree.leaves(same, is_leaf=lambda x: isinstance(x, tuple)))
    assert all(equal == ("table" in k or "norm" in k or "inputs" in k or "'heads'" in k)
               for k, equal in found.items())  # fmt: skip
    assert (tuned.run_dir / "lora.safetensors").is_file()
