"""A model small enough to compile in seconds, and the ones that the reference recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from helium_jax import Moshi, MoshiConfig, MoshiState, Sampler, Sampling, StepOutput, step
from layers_jax import reset_rows


@dataclass(frozen=True)
class Model:
    """Definition and parameters, and programs over them that are compiled once a shape."""

    lm: Moshi
    params: Any

    @property
    def config(self) -> MoshiConfig:
        return self.lm.config

    def compiled(self, function: Callable, **options: Any) -> Callable:
        """`function(lm, params, ...)` as one program, without its first two arguments."""
        run = jax.jit(lambda params, *rest: function(self.lm, params, *rest), **options)
        return lambda *rest: run(self.params, *rest)

    def calls(self, sampling: Sampling) -> Callable[..., tuple[MoshiState, StepOutput]]:
        """`run(state, inputs)`: a scan of the step, outputs by call as numpy arrays.

        `inputs` has `user` [S, B, U], optionally `exec_mask` and `reset_mask` [S, B] (a reset comes
        before the step), and `noise_text` [S, B, R], `noise_audio` [S, B, Q, R].
        """

        def scan(lm: Moshi, params: Any, state: MoshiState, calls: Any) -> Any:
            fresh = state

            def body(state: MoshiState, call: Any) -> tuple[MoshiState, StepOutput]:
                user, mask, reset, noise = call
                state = reset_rows(reset, fresh, state)
                return step(lm, params, state, user, sampling=sampling, exec_mask=mask, noise=noise)

            return jax.lax.scan(body, state, calls)

        program = self.compiled(scan)

        def run(state: MoshiState, inputs: Mapping[str, np.ndarray]) -> Any:
            shape = inputs["user"].shape[:2]
            mask = inputs.get("exec_mask", np.ones(shape, bool))
            reset = inputs.get("reset_mask", np.zeros(shape, bool))
            noise = (
                (inputs["noise_text"], inputs["noise_audio"]) if "noise_text" in inputs else None
            )
            state, out = program(state, (inputs["user"], mask, reset, noise))
            return state, jax.tree.map(np.asarray, out)

        return run


@pytest.fixture(scope="session")
def small(random_module) -> Model:
    """Two generated and two user codebooks, delays of 1, a context of 6 frames."""
    config = MoshiConfig(
        dim=16,
        text_card=13,
        n_q=4,
        dep_q=2,
        card=11,
        num_heads=2,
        num_layers=2,
        context=6,
        depformer_dim=8,
        depformer_dim_feedforward=33,
        depformer_num_heads=2,
        depformer_num_layers=1,
        delays=(0, 0, 1, 0, 1),
    )
    return Model(*random_module(lambda: Moshi(config, rngs=nnx.Rngs(0))))


@pytest.fixture(scope="session")
def small_greedy(small: Model) -> Callable[..., tuple[MoshiState, StepOutput]]:
    """`Model.calls` of the small model, greedy."""
    return small.calls(Sampling.greedy())


@pytest.fixture(scope="session")
def small_sampling() -> Sampling:
    """A way of drawing that keeps some tokens out."""
    return Sampling(
        text=Sampler(temperature=0.9, top_k=7), audio=Sampler(temperature=1.1, top_k=None)
    )


@pytest.fixture(scope="session")
def small_sampled(small: Model, small_sampling: Sampling) -> Callable[..., Any]:
    """`Model.calls` of the small model, drawing."""
    return small.calls(small_sampling)


@pytest.fixture(scope="session")
def small_users(small: Model) -> np.ndarray:
    """User codes [20, 3, 2] for three rows."""
    codes = np.random.default_rng(5).integers(0, small.config.card, (20, 3, 2))
    return codes.astype(np.int32)


@pytest.fixture(scope="session")
def recorded(golden) -> Callable[..., tuple[Model, dict[str, np.ndarray]]]:
    """`recorded(name, precision)`: the recording's model and its tensors."""
    from convert import params_from_tensors
    from layers_jax import Precision
    from layers_jax.functional import abstract

    def load(name: str, precision: Any = None) -> tuple[Model, dict[str, np.ndarray]]:
        values, tensors, weights = golden(name)
        config, precision = MoshiConfig.from_dict(values), precision or Precision.f32()
        lm = abstract(lambda: Moshi(config, precision=precision, rngs=nnx.Rngs(0)))
        params = params_from_tensors(config, weights, dtype=precision.params)
        return Model(lm, params), tensors

    return load


@pytest.fixture(scope="session")
def kyutai(recorded) -> tuple[Model, dict[str, np.ndarray]]:
    """The main recording of the reference."""
    return recorded("lm_kyutai")
