"""The live session: a batch of conversations on one compiled frame step."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from helium_jax.duplex import DuplexFrame, DuplexState, duplex_step, init_duplex_state
from helium_jax.model import Moshi
from helium_jax.opening import continue_from, open_session
from helium_jax.prompts import Voice, wrap_system_text
from helium_jax.sampling import Sampling
from helium_jax.state import MoshiState, init_state
from helium_jax.text import TextTokenizer
from layers_jax import reset_rows
from layers_jax.functional import Params
from layers_jax.snapshot import load_tree, read_note, save_tree
from mimi_jax import Mimi


class DuplexSession:
    """A batch of live conversations.

    What a call hears and says, in frames of the user's audio: the first `lead_frames` calls are not
    heard; the user's frame t is given at call t + `lead_frames`; what the agent says in the same
    80 ms comes out of call t + `delay_frames`.

    Args:
      mimi: codec definition.
      mimi_params: its parameters.
      lm: model definition.
      lm_params: its parameters, layers listed.
      batch: sessions B that run side by side, each on its own clock.
      sampling: how tokens are drawn.
      seed: of all draws.
      tokenizer: of the text; only `prompt` with a text and `pieces` need it.
      conditions: what each session is conditioned on, as `helium_jax.step` takes it.
      row_ids: what tells the sessions' draws apart, 0..B-1 by default; equal ids draw alike.

    Raises:
      ValueError: the codec is not that of the model.
    """

    def __init__(
        self,
        mimi: Mimi,
        mimi_params: Params,
        lm: Moshi,
        lm_params: Params,
        *,
        batch: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
        tokenizer: TextTokenizer | None = None,
        conditions: np.ndarray | None = None,
        row_ids: Sequence[int] | None = None,
    ):
        needed = lm.config.num_user_codebooks
        if mimi.config.num_codebooks != needed or mimi.config.quantizer.bins != lm.config.card:
            raise ValueError(
                f"codec gives {mimi.config.num_codebooks} codebooks of "
                f"{mimi.config.quantizer.bins} entries, expected {needed} of {lm.config.card}; "
                "use the codec that was published with the model"
            )
        self.mimi, self.lm, self.batch, self.tokenizer = mimi, lm, batch, tokenizer
        sampling = sampling or Sampling()
        self._params = jax.device_put((mimi_params, lm_params))
        self._conditions = None if conditions is None else jnp.asarray(conditions)
        self._opening: MoshiState | None = None
        ids = None if row_ids is None else np.asarray(row_ids, np.int32)

        def fresh(opening: MoshiState | None) -> DuplexState:
            state = init_duplex_state(mimi, lm, batch, seed=seed, row_ids=ids, sampling=sampling)
            if opening is None:
                return state
            return DuplexState(mimi=state.mimi, lm=continue_from(opening, state.lm))

        def run(
            params: tuple[Params, Params],
            state: DuplexState,
            pcm: jax.Array,
            mask: jax.Array,
            conditions: jax.Array | None,
        ) -> tuple[DuplexState, DuplexFrame]:
            return duplex_step(
                mimi, lm, params, state, pcm, mask, sampling=sampling, conditions=conditions
            )

        self._fresh = jax.jit(fresh)
        self._run = jax.jit(run, donate_argnums=1)
        self._state = self._fresh(None)
        self._compiled: Callable | None = None
        self._everyone = jnp.ones(batch, bool)

    @property
    def frame_samples(self) -> int:
        """Samples S of a frame."""
        return self.mimi.config.frame_samples

    @property
    def lead_frames(self) -> int:
        """Calls at the start of a session that are not heard; none after a prompt."""
        return int(self._opening is None)

    @property
    def delay_frames(self) -> int:
        """Calls from a frame of the user, given `lead_frames` late, to the agent's same frame."""
        late = self.lm.config.timing == "personaplex" and self._opening is None
        return self.lm.config.max_delay + late

    @property
    def offsets(self) -> np.ndarray:
        """[B] calls that each session has had, those of its prompt included."""
        return np.asarray(self._state.lm.offset)

    def warmup(self) -> None:
        """Compiles the frame step; the first `step` does it otherwise. Sessions are untouched."""
        if self._compiled is None:
            pcm = jax.ShapeDtypeStruct((self.batch, self.frame_samples), jnp.float32)
            lowered = self._run.lower(
                self._params, self._state, pcm, self._everyone, self._conditions
            )
            self._compiled = lowered.compile()

    def step(
        self,
        pcm: Float[np.ndarray | Array, "B S"],
        exec_mask: Bool[np.ndarray | Array, " B"] | None = None,
    ) -> DuplexFrame:
        """One frame of audio of each user in, one frame of each agent out.

        Args:
          pcm: f32 samples in [-1, 1].
          exec_mask: sessions that have a frame, all by default; the others are untouched.

        Raises:
          ValueError: `pcm` has not the shape [B, S].
        """
        expected = (self.batch, self.frame_samples)
        if pcm.shape != expected:
            raise ValueError(
                f"a frame has shape {pcm.shape}, expected {expected} (sessions, samples at "
                f"{self.mimi.config.sample_rate} Hz); buffer the input to whole frames"
            )
        self.warmup()
        assert self._compiled is not None
        mask = self._everyone if exec_mask is None else jnp.asarray(exec_mask)
        pcm = jnp.asarray(pcm, jnp.float32)
        self._state, frame = self._compiled(self._params, self._state, pcm, mask, self._conditions)
        return frame

    def pieces(self, frame: DuplexFrame) -> list[str]:
        """What each session's agent wrote in this frame; empty for padding and where not valid."""
        return [self._tokens().piece(int(token)) for token in np.asarray(frame.text)]

    def prompt(
        self,
        voice: np.ndarray | Voice | None = None,
        text: str = "",
        *,
        beyond_context: bool = False,
    ) -> None:
        """Starts all sessions anew with a voice and a role (PersonaPlex); so does every reset.

        The prompts run once, in one pass, for all sessions.

        Args:
          voice: [S] samples of one speaker at the codec's rate, or a stored voice.
          text: who the agent is; system tags are put around it. Empty leaves that phase out.
          beyond_context: let both be longer than the model's context, which forgets their start.

        Raises:
          ValueError: the model takes no prompts, they are longer than its context, or the tokenizer
            has no piece for some of the text.
        """
        wrapped = wrap_system_text(text)
        tokens = self._tokens().encode_strictly(wrapped) if wrapped else []
        mimi_params, lm_params = self._params
        self._opening = open_session(
            self.lm,
            lm_params,
            self.mimi,
            mimi_params,
            voice,
            tokens,
            beyond_context=beyond_context,
        )
        self._state = self._fresh(self._opening)

    def reset(self, rows: Bool[np.ndarray | Array, " B"] | None = None) -> None:
        """Starts sessions anew, all by default; nothing of their past but the prompt remains."""
        fresh = self._fresh(self._opening)
        self._state = fresh if rows is None else _reset(jnp.asarray(rows), fresh, self._state)

    def save(self, path: str | os.PathLike[str], note: Mapping[str, Any] | None = None) -> None:
        """Writes the state of all sessions and their prompt to a file, whole or not at all.

        Args:
          path: the file (safetensors).
          note: JSON values to keep with it, such as how far an input was heard.
        """
        trees: dict[str, Any] = {"state": self._state}
        kept: dict[str, Any] = {"note": dict(note or {})}
        if self._opening is not None:
            trees["opening"] = self._opening
            kept["opening_capacity"] = self._opening.caches[0].capacity
        save_tree(path, trees, self._owner(), kept)

    def restore(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Continues the sessions of a file as if they had never stopped; returns its note.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is not a saved session, or not one of this model and batch.
        """
        note = read_note(path)
        like: dict[str, Any] = {"state": self._state}
        if note.get("opening_capacity"):
            like["opening"] = init_state(self.lm, 1, capacity=note["opening_capacity"])
        trees = jax.device_put(load_tree(path, like, self._owner()))
        self._state, self._opening = trees["state"], trees.get("opening")
        return note["note"]

    def _owner(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.lm.config)
        return {"batch": self.batch, **{f"model.{k}": v for k, v in config.items()}}

    def _tokens(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise ValueError(
                "text needs a tokenizer, and this session has none; pass `tokenizer`, or use "
                "moshi_jax.load, which does"
            )
        return self.tokenizer


_reset = jax.jit(reset_rows, donate_argnums=2)
