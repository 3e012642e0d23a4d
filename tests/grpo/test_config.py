"""GRPOConfig: the paper's numbers, its rules, its JSON and its command line."""

import json
from pathlib import Path

import pytest

from grpo.__main__ import parse
from grpo.config import (
    AdvantageConfig,
    ContextConfig,
    GRPOConfig,
    LoraTraining,
    LossConfig,
    OptimizerConfig,
    SamplesConfig,
    SamplingConfig,
    TrackingConfig,
)
from grpo.distributed import DistributedConfig
from grpo.perturb import PerturbConfig
from grpo.train import data_config
from rewards.asr import AsrConfig
from rewards.judge import Budget, JudgeConfig, RemoteConfig

PATHS = {"checkpoint": Path("model"), "segments": Path("segments"), "run_dir": Path("run")}


def test_defaults_are_the_published_recipe():
    config = GRPOConfig(**PATHS)
    assert (config.epochs, config.groups_per_epoch, config.num_generations) == (100, 32, 16)
    assert config.total_updates == 1600
    assert config.prefix_silence_s == 3.0
    assert config.trained_axes == ("pause", "turn", "backchannel", "interruption")
    assert config.context == ContextConfig(probability=0.5, max_s=30.0)
    assert config.advantage == AdvantageConfig(estimator="gdpo", clip=None)
    assert (config.loss.action_space, config.loss.window) == ("text_tokens", "segment")
    assert config.sampling == SamplingConfig(
        text_temperature=0.7, audio_temperature=0.8, audio_top_k=250
    )
    assert config.loss == LossConfig(epsilon=0.2, beta=0.01)
    assert config.optimizer == OptimizerConfig(
        learning_rate=2e-7, beta1=0.9, beta2=0.95, weight_decay=0.1, clip_norm=2.0
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("groups_per_epoch", 0),
        ("num_generations", 1),
        ("devices", 0),
        ("axes", ()),
        ("prefix_silence_s", -0.1),
        ("bucket_frames", (64, 64)),
        ("bucket_frames", (0, 64)),
        ("bucket_frames", ()),
        ("axes", ("pauses",)),
        ("drop_axis", ("turning",)),
        ("drop_axis", ("pause", "turn", "backchannel", "interruption")),
        ("mesh_shape", (2, 2)),
        ("max_skipped_updates", 0),
        ("scoring_threads", 0),
        ("checkpoint_every", 0),
        ("seed", -1),
    ],
)
def test_a_bad_value_is_named_with_its_rule(field, value):
    with pytest.raises(ValueError, match=rf"GRPOConfig\.{field} is .*; it must be"):
        GRPOConfig(**PATHS, **{field: value})


@pytest.mark.parametrize(
    ("owner", "field", "value"),
    [
        (SamplingConfig, "text_temperature", 0.0),
        (SamplingConfig, "audio_temperature", -1.0),
        (SamplingConfig, "audio_top_k", 0),
        (LossConfig, "epsilon", 1.0),
        (LossConfig, "beta", -0.01),
        (LossConfig, "epsilon_high", 0.1),
        (LossConfig, "event_tail_s", 0.0),
        (AdvantageConfig, "clip", 0.0),
        (LoraTraining, "rank", 0),
        (LoraTraining, "targets", ("depth",)),
        (ContextConfig, "probability", 1.1),
        (ContextConfig, "max_s", 0.0),
        (SamplesConfig, "every_epochs", -1),
        (SamplesConfig, "count", 0),
        (OptimizerConfig, "learning_rate", 0.0),
        (OptimizerConfig, "beta1", 1.0),
        (OptimizerConfig, "beta2", 1.0),
        (OptimizerConfig, "weight_decay", -0.1),
        (OptimizerConfig, "clip_norm", 0.0),
    ],
)
def test_a_bad_nested_value_is_named_with_its_rule(owner, field, value):
    with pytest.raises(ValueError, match=rf"{owner.__name__}\.{field} is .*; it must be"):
        owner(**{field: value})


def test_json_round_trip_keeps_every_field():
    config = GRPOConfig(
        **PATHS,
        epochs=7,
        groups_per_epoch=6,
        num_generations=4,
        devices=2,
        axes=("turn", "pause"),
        drop_axis=("pause",),
        no_context=True,
        weight_rounding="stochastic",
        mapping="shard_map",
        mesh_shape=(2, 1),
        max_skipped_updates=5,
        scoring_threads=2,
        monitors="stop",
        prefix_silence_s=0.5,
        bucket_frames=(10, 20),
        precision="bf16",
        checkpoint_every=3,
        seed=11,
        sampling=SamplingConfig(text_temperature=0.9, audio_temperature=1.1, audio_top_k=9),
        loss=LossConfig(epsilon=0.1, epsilon_high=0.3, beta=0.5, aggregate="frame"),
        advantage=AdvantageConfig(estimator="rloo", clip=5.0),
        lora=LoraTraining(rank=4, scaling=1.0, targets=("head",)),
        context=ContextConfig(probability=1.0, max_s=3.0),
        perturb=PerturbConfig(probability=0.5, kinds=("white", "loss"), ramp_steps=7, seed=1),
        samples=SamplesConfig(every_epochs=1, count=3),
        tracking=TrackingConfig(tensorboard=True, wandb_project="p"),
        distributed=DistributedConfig(coordinator="a:1", num_processes=2, process_id=1),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, beta1=0.8, beta2=0.9, weight_decay=0.0, clip_norm=1.0
        ),
        judge=JudgeConfig(
            kind="remote",
            remote=RemoteConfig(
                urls=("http://a/v1",), model="m", budget=Budget(max_calls=3), cache=Path("j.sqlite")
            ),
        ),
        asr=AsrConfig(kind="packaged", workers=2, cache=Path("t.sqlite")),
    )
    default = GRPOConfig(**PATHS)
    changed = [
        name
        for name in json.loads(default.to_json())
        if getattr(config, name) != getattr(default, name)
    ]
    same = {
        "precision",
        "no_context_schedule",
        "no_judge",
    }  # stochastic rounding needs one, no_context the other
    assert set(changed) | set(PATHS) | same == set(json.loads(config.to_json()))
    assert GRPOConfig.from_json(config.to_json()) == config


def test_the_ablations_of_the_paper_are_flags():
    paths = ["--checkpoint", "m", "--segments", "s", "--run-dir", "r"]

    def data(*flags):
        return data_config(parse([*paths, *flags]))

    assert data().context_ramp_steps == 100 and data().context_probability == 0.5
    assert data("--drop-axis", "pause", "turn").axes == ("backchannel", "interruption")
    assert data("--no-context").context_probability == 0
    assert data("--no-context-schedule").context_ramp_steps == 1
    with pytest.raises(SystemExit):
        data("--no-no-context")


def test_an_ablation_without_effect_is_refused():
    with pytest.raises(ValueError, match="no_context_schedule is True; it must be left out"):
        GRPOConfig(**PATHS, no_context=True, no_context_schedule=True)
    with pytest.raises(ValueError, match="weight_rounding is 'stochastic'; it must be"):
        GRPOConfig(**PATHS, weight_rounding="stochastic", precision="f32")


def test_json_with_an_unknown_key_is_refused():
    values = json.loads(GRPOConfig(**PATHS).to_json())
    values["loss"]["epsilom"] = 0.3
    with pytest.raises(ValueError, match=r"LossConfig has no field.*epsilom"):
        GRPOConfig.from_json(json.dumps(values))


def test_command_line_reaches_nested_fields():
    paths = ["--checkpoint", "m", "--segments", "s", "--run-dir", "r"]
    flags = ["--devices", "2", "--loss.beta", "0.1", "--axes", "pause"]
    config = parse(paths + flags)
    assert (config.checkpoint, config.devices) == (Path("m"), 2)
    assert (config.loss.beta, config.axes) == (0.1, ("pause",))


@pytest.mark.parametrize("flag", [["--no-such-flag", "1"], ["--precision", "fp8"]])
def test_a_wrong_flag_is_bad_usage(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--checkpoint", "m", "--segments", "s", "--run-dir", "r", *flag])
    assert stop.value.code == 2
    assert flag[0].strip("-") in capsys.readouterr().err


def test_a_judge_needs_ears():
    with pytest.raises(ValueError, match=r"asr is .* it must be some kind of recognizer"):
        GRPOConfig(**PATHS, judge=JudgeConfig(kind="embedded"))
    GRPOConfig(**PATHS, judge=JudgeConfig(kind="embedded"), asr=AsrConfig(kind="text_stream"))
    assert GRPOConfig(**PATHS, asr=AsrConfig(kind="packaged")).judge.kind == "none"


def test_weights_are_of_rewards_that_exist():
    assert AdvantageConfig(weights={"judge": 2.0, "turn_taking": 0.0}).weights["judge"] == 2.0
    for weights in ({"pause": 2.0}, {"judge": float("nan")}):
        with pytest.raises(ValueError, match=r"weights is .* names out of .*pause_handling"):
            AdvantageConfig(weights=weights)
    config = parse(
        [
            *("--checkpoint", "m", "--segments", "s", "--run-dir", "r"),
            *("--advantage.weights", "pause_handling", "3", "judge", "0.5"),
        ]
    )
    assert config.advantage.weights == {"pause_handling": 3.0, "judge": 0.5}
    assert GRPOConfig.from_json(config.to_json()) == config
