"""The codec's parameters and its two halves. Source: moshi/models/compression.py."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers_jax import (
    CausalConv1d,
    CausalConvTranspose1d,
    Precision,
    Transformer,
    masked_update,
)
from mimi_jax.config import MimiConfig
from mimi_jax.quantizer import SplitResidualVQ
from mimi_jax.seanet import SeanetDecoder, SeanetEncoder
from mimi_jax.state import CodecState, MimiState


class Mimi(nnx.Module):
    """Waveform to codes and back.

    Always f32 with full-precision products: one code that flips changes the audio and the tokens
    that follow.
    """

    def __init__(self, config: MimiConfig, *, rngs: nnx.Rngs):
        precision = Precision.f32()
        dim, stride = config.seanet.dimension, config.resample_stride
        self.encoder = SeanetEncoder(config.seanet, precision=precision, rngs=rngs)
        self.encoder_transformer = Transformer(config.transformer, precision=precision, rngs=rngs)
        self.downsample = CausalConv1d(
            dim, dim, 2 * stride, stride=stride, bias=False, precision=precision, rngs=rngs
        )
        self.quantizer = SplitResidualVQ(dim, config.quantizer, precision=precision, rngs=rngs)
        self.upsample = CausalConvTranspose1d(
            dim, dim, stride=stride, depthwise=True, bias=False, precision=precision, rngs=rngs
        )
        self.decoder_transformer = Transformer(config.transformer, precision=precision, rngs=rngs)
        self.decoder = SeanetDecoder(config.seanet, precision=precision, rngs=rngs)
        self.config = config

    def init_state(self, batch: int) -> MimiState:
        """State before the first frame."""

        def half(histories: list[jax.Array], resample: jax.Array, stack: Transformer) -> CodecState:
            offset = jnp.zeros(batch, jnp.int32)
            return CodecState(offset, histories, resample, stack.init_caches(batch))

        return MimiState(
            encoder=half(
                self.encoder.init_histories(batch),
                self.downsample.init_history(batch),
                self.encoder_transformer,
            ),
            decoder=half(
                self.decoder.init_histories(batch),
                self.upsample.init_history(batch),
                self.decoder_transformer,
            ),
        )

    # ---- full form: the whole signal at once ------------------------------------------------

    def latent(self, pcm: Float[Array, "B S"]) -> Float[Array, "B T D"]:
        """Unquantized latent of whole frames, S a multiple of the frame."""
        x, _ = self.encoder(pcm[..., None])
        x = self.encoder_transformer(x)
        x, _ = self.downsample(x, self._first_history(x))
        return x

    def synthesis(self, codes: Int[Array, "B K T"]) -> Float[Array, "B S"]:
        """Waveform of T frames."""
        x, _ = self.upsample(self.quantizer.decode(codes))
        pcm, _ = self.decoder(self.decoder_transformer(x))
        return pcm[..., 0]

    # ---- step form: the next frames of each row ---------------------------------------------

    def latent_step(
        self, pcm: Float[Array, "B S"], state: CodecState, mask: Bool[Array, " B"]
    ) -> tuple[Float[Array, "B T D"], CodecState]:
        """Latent of the next frames, and the state after them where `mask` is True."""
        x, histories = self.encoder(pcm[..., None], state.histories)
        columns = x.shape[1]
        x, caches = self.encoder_transformer.step(x, state.caches, state.offset, mask)
        started = state.offset > 0
        history = masked_update(started, state.resample, self._first_history(x))
        x, history = self.downsample(x, history)
        return x, self._advance(state, columns, histories, history, caches, mask)

    def synthesis_step(
        self, codes: Int[Array, "B K T"], state: CodecState, mask: Bool[Array, " B"]
    ) -> tuple[Float[Array, "B S"], CodecState]:
        """Waveform of the next frames, and the state after them where `mask` is True."""
        x, overhang = self.upsample(self.quantizer.decode(codes), state.resample)
        columns = x.shape[1]
        x, caches = self.decoder_transformer.step(x, state.caches, state.offset, mask)
        pcm, histories = self.decoder(x, state.histories)
        return pcm[..., 0], self._advance(state, columns, histories, overhang, caches, mask)

    def _first_history(self, x: Float[Array, "B T D"]) -> Float[Array, "B P D"]:
        """The down-sampler starts on copies of its first column, not on silence."""
        return jnp.repeat(x[:, :1], self.downsample.history_length, axis=1)

    @staticmethod
    def _advance(
        state: CodecState,
        columns: int,
        histories: list[jax.Array],
        resample: jax.Array,
        caches: list,
        mask: jax.Array,
    ) -> CodecState:
        """The state after a call. The rings have masked themselves; the rest is selected here."""
        offset = state.offset + columns
        small = (offset, histories, resample)
        kept = masked_update(mask, small, (state.offset, state.histories, state.resample))
        return CodecState(*kept, caches)
