"""Settings that cannot be meant are refused by name."""

import json
from pathlib import Path

import pytest

from moshi_jax.pretrain import PretrainConfig

FOLDER = Path("folder")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("cut_frames", 1),
        ("from_start", 1.5),
        ("first_codebook_weight", 0.0),
        ("text_padding_weight", -1.0),
        ("user_weight", -0.1),
        ("checkpoint_every", 15),
        ("diverged_at", 1.0),
        ("mesh_shape", (2,)),
        ("seed", -1),
    ],
)
def test_what_breaks_a_rule_is_named(field, value):
    with pytest.raises(ValueError, match=rf"PretrainConfig\.{field} is .*; it must be"):
        PretrainConfig(checkpoint=FOLDER, data=FOLDER, run_dir=FOLDER, **{field: value})


def test_random_rounding_needs_bf16():
    with pytest.raises(ValueError, match="weight_rounding"):
        PretrainConfig(
            checkpoint=FOLDER, data=FOLDER, run_dir=FOLDER,
            precision="f32", weight_rounding="stochastic",
        )  # fmt: skip


def test_everything_is_written_as_json():
    config = PretrainConfig(checkpoint=FOLDER, data=FOLDER, run_dir=FOLDER)
    values = json.loads(config.to_json())
    assert values["checkpoint"] == "folder" and values["optimizer"]["warmup_updates"] == 100
