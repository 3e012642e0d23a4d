"""Comparisons differ by the parameters and by nothing else."""

import jax
import pytest

from convert import load_moshi
from grpo.config import GRPOConfig
from grpo.evaluate import evaluate_conditions
from grpo.extract import ExtractConfig, extract
from grpo.perturb import PerturbConfig
from layers_jax import Precision
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint


@pytest.mark.slow
def test_equal_parameters_get_equal_rewards_and_others_do_not(tmp_path):
    extract(conversation_path(), tmp_path / "segments", ExtractConfig(axes=("pause", "turn")))
    config = GRPOConfig(
        checkpoint=embedded_checkpoint(),
        segments=tmp_path / "segments",
        run_dir=tmp_path / "run",
        num_generations=4,
        devices=2,
        bucket_frames=(416,),
        precision="f32",
        axes=("pause", "turn"),
        no_context=True,
    )
    _, params = load_moshi(embedded_checkpoint(), precision=Precision.f32())
    silent = jax.tree.map(lambda leaf: leaf, params)
    silent["text_head"] = {"kernel": params["text_head"]["kernel"].at[:, 3].multiply(4.0)}
    policies = {"base": None, "same": params, "padding": silent}
    found = evaluate_conditions(config, policies, {"clean": PerturbConfig()}, groups=6)
    rewards = found["clean"]
    assert rewards["base"] == rewards["same"]
    assert set(rewards["base"]) == {"pause/pause_handling", "turn/turn_taking"}
    assert rewards["base"]["turn/turn_taking"] < 0
    assert rewards["padding"] != rewards["base"]
    assert not (tmp_path / "run").exists()
