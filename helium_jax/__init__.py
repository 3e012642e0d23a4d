"""Moshi: Kyutai's full-duplex speech-text model (arXiv 2410.00037) as one compiled step."""

from helium_jax.conditions import LutConfig, condition_rows
from helium_jax.config import MoshiConfig
from helium_jax.delays import apply_delays, undo_delays
from helium_jax.duplex import DuplexFrame
from helium_jax.forward import (
    Logits,
    delayed_grid,
    forward,
    forward_text,
    logits_of_hidden,
    stack_layers,
    unstack_layers,
)
from helium_jax.grid import NOT_GIVEN, NOT_READY, Given
from helium_jax.guidance import Guidance
from helium_jax.logprobs import trajectory_log_probs
from helium_jax.loss import TokenLoss, token_loss
from helium_jax.model import Moshi
from helium_jax.prefill import prefill, prefill_embeddings
from helium_jax.presets import as_personaplex, helium_2b, moshi_7b, nano, personaplex_7b
from helium_jax.prompts import Voice, check_tokens, prompt_frames, wrap_system_text
from helium_jax.sampling import Sampler, Sampling
from helium_jax.session import DuplexSession
from helium_jax.sharding import MODEL_AXIS, param_shardings, state_shardings
from helium_jax.state import MoshiState, StepOutput, init_state
from helium_jax.step import step
from helium_jax.text import TextTokenizer

__all__ = [
    "MODEL_AXIS",
    "NOT_GIVEN",
    "NOT_READY",
    "DuplexFrame",
    "DuplexSession",
    "Given",
    "Guidance",
    "Logits",
    "LutConfig",
    "Moshi",
    "MoshiConfig",
    "MoshiState",
    "Sampler",
    "Sampling",
    "StepOutput",
    "TextTokenizer",
    "TokenLoss",
    "Voice",
    "apply_delays",
    "as_personaplex",
    "check_tokens",
    "condition_rows",
    "delayed_grid",
    "forward",
    "forward_text",
    "helium_2b",
    "init_state",
    "logits_of_hidden",
    "moshi_7b",
    "nano",
    "param_shardings",
    "personaplex_7b",
    "prefill",
    "prefill_embeddings",
    "prompt_frames",
    "stack_layers",
    "state_shardings",
    "step",
    "token_loss",
    "trajectory_log_probs",
    "undo_delays",
    "unstack_layers",
    "wrap_system_text",
]
