"""GRPOConfig: the paper's numbers, its rules, its JSON and its command line."""

import json
from pathlib import Path

import pytest
import tyro

from grpo.config import GRPOConfig, LossConfig, OptimizerConfig, SamplingConfig

PATHS = {"checkpoint": Path("model"), "segments": Path("segments"), "run_dir": Path("run")}


def test_defaults_are_the_published_recipe():
    config = GRPOConfig(**PATHS)
    assert (config.epochs, config.groups_per_epoch, config.num_generations) == (100, 32, 16)
    assert config.total_updates == 1600
    assert config.prefix_silence_s == 3.0
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
        axes=("turn",),
        prefix_silence_s=0.5,
        bucket_frames=(10, 20),
        precision="f32",
        checkpoint_every=3,
        seed=11,
        sampling=SamplingConfig(text_temperature=0.9, audio_temperature=1.1, audio_top_k=9),
        loss=LossConfig(epsilon=0.1, beta=0.5),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, beta1=0.8, beta2=0.9, weight_decay=0.0, clip_norm=1.0
        ),
    )
    default = GRPOConfig(**PATHS)
    changed = [
        name
        for name in json.loads(default.to_json())
        if getattr(config, name) != getattr(default, name)
    ]
    assert set(changed) | set(PATHS) == set(json.loads(config.to_json()))
    assert GRPOConfig.from_json(config.to_json()) == config


def test_json_with_an_unknown_key_is_refused():
    values = json.loads(GRPOConfig(**PATHS).to_json())
    values["loss"]["epsilom"] = 0.3
    with pytest.raises(ValueError, match=r"LossConfig has no field.*epsilom"):
        GRPOConfig.from_json(json.dumps(values))


def test_command_line_reaches_nested_fields():
    paths = ["--checkpoint", "m", "--segments", "s", "--run-dir", "r"]
    flags = ["--devices", "2", "--loss.beta", "0.1", "--axes", "pause"]
    config = tyro.cli(GRPOConfig, args=paths + flags)
    assert (config.checkpoint, config.devices) == (Path("m"), 2)
    assert (config.loss.beta, config.axes) == (0.1, ("pause",))


@pytest.mark.parametrize("flag", [["--no-such-flag", "1"], ["--precision", "fp8"]])
def test_a_wrong_flag_is_bad_usage(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        tyro.cli(GRPOConfig, args=["--checkpoint", "m", "--segments", "s", "--run-dir", "r", *flag])
    assert stop.value.code == 2
    assert flag[0].strip("-") in capsys.readouterr().err
