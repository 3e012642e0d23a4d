"""Which parameters of the codec a training may move."""

import jax

from layers_jax.functional import Params

__all__ = ["trainable"]

_DECODING = {"upsample", "decoder_transformer", "decoder"}


def trainable(params: Params, *, encoder: bool = False) -> Params:
    """A tree like `params` that says of each leaf whether it may move (a mask for optax).

    By default the decoder alone: the codes keep their meaning, and every model that speaks them
    goes on working. Code vectors never move by gradient: a checkpoint holds running sums of them.

    Args:
      params: the codec's parameters.
      encoder: the encoder too.
    """

    def moves(path: tuple, _: jax.Array) -> bool:
        top, *rest = [str(getattr(key, "key", key)) for key in path]
        if top == "quantizer":
            return "output_projection" in rest or (encoder and "input_projection" in rest)
        return encoder or top in _DECODING

    return jax.tree_util.tree_map_with_path(moves, params)
