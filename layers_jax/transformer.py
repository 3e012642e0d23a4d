"""Pre-norm transformer: full and step form of one block, layers listed or stacked.

Decoding keeps a list of layers and unrolls it, since stacked weights are copied by a GPU layer by
layer. Training stacks the same layers on a leading axis and scans them with rematerialisation.
Source: `StreamingTransformer` in moshi/modules/transformer.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers_jax.attention import (
    UNWRITTEN,
    NewTokens,
    RingCache,
    RingRule,
    attend,
    attend_and_write,
    positions_left,
    ring_positions,
    visible,
    write_and_attend,
)
from layers_jax.functional import Params, bind, split
from layers_jax.linear import Linear
from layers_jax.lora import LoraConfig
from layers_jax.mlp import GatedMlp, Mlp
from layers_jax.norm import LayerNorm, LayerScale, RMSNorm
from layers_jax.precision import Precision
from layers_jax.rope import RopeLayout, apply_rope
from layers_jax.sharding import replicated


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a stack of blocks.

    Attributes:
      dim: model width D.
      num_heads: query heads; head width H = dim / num_heads.
      num_layers: depth L.
      hidden: inner width F of the feed-forward block.
      context: how many tokens back a query sees, itself included; also the ring's capacity.
      max_period: longest RoPE period in tokens.
      rope: how RoPE pairs channels.
      kv_repeat: query heads that share one key head.
      norm: "rms" (language model) or "layer" (codec).
      mlp: "gated" SiLU or "gelu".
      layer_scale: initial residual factor, None for no factor.
      ring: which reference's ring rule holds once the ring is full.
      lora: adapters beside every matrix, None for none.
    """

    dim: int
    num_heads: int
    num_layers: int
    hidden: int
    context: int
    max_period: float = 10_000
    rope: RopeLayout = "interleaved"
    kv_repeat: int = 1
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["gated", "gelu"] = "gated"
    layer_scale: float | None = None
    ring: RingRule = "kyutai"
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "num_heads", "num_layers", "hidden", "context", "kv_repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.dim % (2 * self.num_heads):
            raise ValueError(
                f"dim is {self.dim}, expected a multiple of 2 * {self.num_heads} heads"
            )
        if self.num_heads % self.kv_repeat:
            raise ValueError(
                f"kv_repeat is {self.kv_repeat}, expected a divisor of {self.num_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width H of a head."""
        return self.dim // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        """Key heads N."""
        return self.num_heads // self.kv_repeat


class Attention(nnx.Module):
    """The projections of attention: qkv [D, N, R + 2, H] (R queries, key, value a key head), out.

    One fused matrix with the heads as an axis of their own: one matmul a token, and a split over
    heads divides queries, keys and values alike.
    """

    def __init__(self, config: TransformerConfig, *, precision: Precision, rngs: nnx.Rngs):
        groups, width = config.num_kv_heads, config.kv_repeat + 2
        features = (groups, width, config.head_dim)
        lora = config.lora
        self.qkv = Linear(config.dim, features, lora=lora, precision=precision, rngs=rngs)
        self.out = Linear(config.dim, config.dim, lora=lora, precision=precision, rngs=rngs)

    def project(
        self, x: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B T N R H"], Float[Array, "B T N H"], Float[Array, "B T N H"]]:
        """Queries, keys and values of each token."""
        qkv = self.qkv(x)
        return qkv[..., :-2, :], qkv[..., -2, :], qkv[..., -1, :]

    def merge(self, heads: Float[Array, "B T N R H"]) -> Float[Array, "B T D"]:
        """Output projection of the joined heads."""
        batch, length = heads.shape[:2]
        return self.out(heads.reshape(batch, length, -1))


class Block(nnx.Module):
    """One layer: attention and feed-forward, each on a normed residual branch."""

    def __init__(self, config: TransformerConfig, *, precision: Precision, rngs: nnx.Rngs):
        norm = RMSNorm if config.norm == "rms" else LayerNorm
        mlp = GatedMlp if config.mlp == "gated" else Mlp
        self.norm1 = norm(config.dim, precision=precision, rngs=rngs)
        self.attention = Attention(config, precision=precision, rngs=rngs)
        self.norm2 = norm(config.dim, precision=precision, rngs=rngs)
        self.mlp = mlp(config.dim, config.hidden, lora=config.lora, precision=precision, rngs=rngs)
        scales = [
            None
            if config.layer_scale is None
            else LayerScale(config.dim, config.layer_scale, precision=precision, rngs=rngs)
            for _ in range(2)
        ]
        self.layer_scale1, self.layer_scale2 = scales
        self.config, self.precision = config, precision

    def __call__(
        self,
        x: Float[Array, "B T D"],
        offset: Int[Array, " B"],
        cache: RingCache | None,
        mask: Bool[Array, " B"] | None,
    ) -> tuple[Float[Array, "B T D"], RingCache | None]:
        """T tokens from position `offset`, seeing what is in the cache once they are written."""
        config = self.config
        positions = offset[:, None] + jnp.arange(x.shape[1])
        queries, keys, values = self._project(x, positions)
        if cache is None:
            seen = visible(positions, positions, config.context)
            parts = [(keys.swapaxes(1, 2), values.swapaxes(1, 2))]
            return self._merge(x, attend(queries, parts, seen, self.precision.matmul)), None
        assert mask is not None
        left = positions_left(offset, x.shape[1], cache.capacity, config.ring)
        seen = visible(positions, jnp.concatenate([left, positions], axis=1), config.context)
        new = NewTokens(queries, keys, values, offset, mask[:, None], seen)
        heads, cache = jax.lax.platform_dependent(
            new,
            cache,
            cuda=partial(write_and_attend, matmul=self.precision.matmul),
            default=partial(attend_and_write, matmul=self.precision.matmul),
        )
        return self._merge(x, heads), cache

    def prefill(
        self,
        x: Float[Array, "B T D"],
        offset: Int[Array, " B"],
        cache: RingCache,
        valid: Bool[Array, "B T"],
    ) -> tuple[Float[Array, "B T D"], RingCache]:
        """T tokens in one pass as T calls with one token each would take them.

        Those calls see what each of them leaves in the ring; the window that this gives follows
        from the ring rule.
        """
        config = self.config
        positions = offset[:, None] + jnp.arange(x.shape[1])
        queries, keys, values = self._project(x, positions)
        cached = ring_positions(offset, 0, cache.capacity, "kyutai")
        fresh = jnp.where(valid, positions, UNWRITTEN)
        window = config.context - (config.ring == "personaplex")
        seen = visible(positions, jnp.concatenate([cached, fresh], axis=1), window)
        end = jnp.max(fresh, axis=1, keepdims=True)
        kept = valid & (positions > end - cache.capacity)
        new = NewTokens(queries, keys, values, offset, kept, seen)
        heads, cache = attend_and_write(new, cache, matmul=self.precision.matmul)
        return self._merge(x, heads), cache

    def _project(
        self, x: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        config = self.config
        queries, keys, values = self.attention.project(self.norm1(x))
        flat = queries.reshape(*queries.shape[:2], config.num_heads, config.head_dim)
        turned = self._rope(flat, positions).reshape(queries.shape)
        return turned, self._rope(keys, positions), values

    def _merge(self, x: jax.Array, heads: jax.Array) -> jax.Array:
        x = replicated(x + self._scaled(self.layer_scale1, self.attention.merge(heads)))
        return replicated(x + self._scaled(self.layer_scale2, self.mlp(self.norm2(x))))

    def _rope(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        return apply_rope(x, positions, max_period=self.config.max_period, layout=self.config.rope)

    @staticmethod
    def _scaled(scale: LayerScale | None, branch: jax.Array) -> jax.Array:
        return branch if scale is None else scale(branch)


class Transformer(nnx.Module):
    """A stack of blocks. `stacked` holds one block whose parameters have a leading layer axis."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        precision: Precision,
        stacked: bool = False,
        rngs: nnx.Rngs,
    ):
        def block(layer_rngs: nnx.Rngs) -> Block:
            return Block(config, precision=precision, rngs=layer_rngs)

        if stacked:
            keys = jax.random.split(rngs.params(), config.num_layers)
            self.layers = nnx.vmap(lambda key: block(nnx.Rngs(key)))(keys)
        else:
            self.layers = nnx.List([block(rngs) for _ in range(config.num_layers)])
        self.config, self.precision = config, precision

    def init_caches(self, batch: int, capacity: int | None = None) -> list[RingCache]:
        """An empty ring a layer; `capacity` below the context is for shorter sessions."""
        config = self.config
        slots = min(config.context, capacity or config.context)
        return [
            RingCache.zeros(
                batch, config.num_kv_heads, slots, config.head_dim, self.precision.cache
            )
            for _ in range(config.num_layers)
        ]

    def __call__(
        self, x: Float[Array, "B T D"], layer_params: Callable[[Params], Params] | None = None
    ) -> Float[Array, "B T D"]:
        """All tokens of a sequence at once, from position 0.

        Args:
          x: embedded tokens.
          layer_params: makes a stacked layer's parameters out of its slice of the stack, where they
            are rematerialised (a gather of what other devices hold); the slice itself by default.
        """
        offset = jnp.zeros(x.shape[0], jnp.int32)
        if not isinstance(self.layers, Block):
            for layer in self.layers:
                x, _ = layer(x, offset, None, None)
            return x
        template = self.layers

        def body(x: jax.Array, params: Params) -> tuple[jax.Array, None]:
            whole = params if layer_params is None else layer_params(params)
            return bind(template, whole)(x, offset, None, None)[0], None

        _, params = split(self.layers)
        x, _ = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), x, params)
        return x

    def step(
        self,
        x: Float[Array, "B T D"],
        caches: list[RingCache],
        offset: Int[Array, " B"],
        mask: Bool[Array, " B"],
    ) -> tuple[Float[Array, "B T D"], list[RingCache]]:
        """The next T tokens of each row, read from and written to the rings.

        Raises:
          ValueError: the module is stacked (a scan would copy every layer's weights on a GPU).
        """
        new = []
        for layer, cache in zip(self._listed(), caches, strict=True):
            x, written = layer(x, offset, cache, mask)
            assert written is not None
            new.append(written)
        return x, new

    def prefill(
        self,
        x: Float[Array, "B T D"],
        caches: list[RingCache],
        offset: Int[Array, " B"],
        valid: Bool[Array, "B T"],
    ) -> tuple[Float[Array, "B T D"], list[RingCache]]:
        """What T steps of one token each would give, in one pass.

        Args:
          x: tokens; those of a row that are not `valid` only pad it, at its start or its end.
          caches: the rings so far.
          offset: position of each row's first token, padding included; may be below 0 there.
          valid: which tokens count.

        Raises:
          ValueError: the module is stacked.
        """
        new = []
        for layer, cache in zip(self._listed(), caches, strict=True):
            x, written = layer.prefill(x, offset, cache, valid)
            new.append(written)
        return x, new

    def _listed(self) -> Sequence[Block]:
        if isinstance(self.layers, Block):
            raise ValueError(
                "stacked layers got a step, expected a list; call unstack_layers first"
            )
        return self.layers


def stack_layers(layers: list[Any]) -> Any:
    """The parameter trees of L equal layers as one tree with a leading axis L (training form)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def unstack_layers(stacked: Any) -> list[Any]:
    """Inverse of `stack_layers` (decoding and saved form)."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    return [jax.tree.map(lambda leaf: leaf[index], stacked) for index in range(count)]  # noqa: B023
