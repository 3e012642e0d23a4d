"""Conditions of a whole session, such as the expected quality: one vector added to every input.

Source: moshi/conditioners/text.py (`LUTConditioner`) and base.py (`ConditionFuser`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from layers_jax import Linear, LoraConfig, Precision
from layers_jax.linear import normal_init

_LUT_KEYS = {"n_bins", "dim", "tokenizer", "possible_values"}


@dataclass(frozen=True, kw_only=True)
class LutConfig:
    """A condition with a vector a value.

    Attributes:
      name: of the condition.
      n_bins: values it can have; the table has one more row, for "not given".
      dim: width of the table.
      possible_values: the values in the table's order; None hashes any text into a bin.
    """

    name: str
    n_bins: int
    dim: int
    possible_values: tuple[str, ...] | None = None

    def row(self, value: str | None) -> int:
        """The row of a value, `n_bins` for None.

        Raises:
          ValueError: it is none of the possible values.
        """
        if value is None:
            return self.n_bins
        if self.possible_values is None:
            return int(hashlib.sha256(value.encode("utf-8")).hexdigest(), 16) % self.n_bins
        if value not in self.possible_values:
            raise ValueError(
                f"condition {self.name!r} is {value!r}, expected one of "
                f"{list(self.possible_values)}, or None for not given"
            )
        return self.possible_values.index(value)


class LutCondition(nnx.Module):
    """Rows of a small table, projected; in f32 whatever the model computes in."""

    def __init__(
        self, config: LutConfig, dim: int, *, lora: LoraConfig | None = None, rngs: nnx.Rngs
    ):
        wide = Precision.f32()
        self.table = normal_init(rngs, (config.n_bins + 1, config.dim), wide, fan_in=config.dim)
        self.projection = Linear(config.dim, dim, lora=lora, precision=wide, rngs=rngs)
        self.padding = normal_init(rngs, (dim,), wide, fan_in=dim)
        self.config = config

    def __call__(self, rows: Int[Array, " B"]) -> Float[Array, "B D"]:
        """The vector of each row; "not given" has one of its own."""
        known = self.projection(self.table[...][rows])
        return jnp.where((rows == self.config.n_bins)[:, None], self.padding[...], known)


def condition_rows(
    configs: Sequence[LutConfig], values: Sequence[Mapping[str, str | None]]
) -> np.ndarray:
    """Table rows [B, conditions] of what each session of a batch is conditioned on.

    Args:
      configs: the model's conditioners.
      values: for each session the value of every condition; None for "not given".

    Raises:
      ValueError: a condition is missing, unknown, or has an impossible value.
    """
    names = {config.name for config in configs}
    for given in values:
        if set(given) != names:
            raise ValueError(
                f"conditions are {sorted(given)}, expected {sorted(names)} with a value or None "
                "for each"
            )
    rows = [[config.row(given[config.name]) for config in configs] for given in values]
    return np.array(rows, np.int32).reshape(len(values), len(configs))


def read_conditioners(
    conditioners: Mapping[str, Any] | None, fuser: Mapping[str, Any] | None
) -> tuple[tuple[LutConfig, ...], list[str]]:
    """The `conditioners` and `fuser` of a `config.json` in the order of summation, and problems."""
    conditioners, fuser = conditioners or {}, fuser or {}
    problems = []
    for how, names in fuser.items():
        if how not in ("sum", "cross_attention_pos_emb", "cross_attention_pos_emb_scale") and names:
            problems.append(f"'fuser' has {how!r} {names!r}, expected only 'sum'")
    summed = list(fuser.get("sum") or ())
    if sorted(summed) != sorted(conditioners):
        problems.append(
            f"'fuser' sums {summed!r}, expected exactly the conditioners {sorted(conditioners)!r}"
        )
    configs = []
    for name in summed:
        values = conditioners.get(name, {})
        lut = values.get("lut") or {}
        if values.get("type") != "lut" or lut.get("tokenizer") != "noop" or set(lut) - _LUT_KEYS:
            problems.append(
                f"conditioner {name!r} is {values!r}, expected type 'lut' with tokenizer 'noop' "
                f"and keys among {sorted(_LUT_KEYS)}"
            )
            continue
        choices = lut.get("possible_values")
        configs.append(
            LutConfig(
                name=name,
                n_bins=lut["n_bins"],
                dim=lut["dim"],
                possible_values=None if choices is None else tuple(choices),
            )
        )
    return tuple(configs), problems


def write_conditioners(configs: Sequence[LutConfig]) -> dict[str, Any]:
    """Inverse of `read_conditioners`; empty for no conditions."""
    if not configs:
        return {}
    tables = {
        config.name: {
            "type": "lut",
            "lut": {
                "n_bins": config.n_bins,
                "dim": config.dim,
                "tokenizer": "noop",
                "possible_values": config.possible_values and list(config.possible_values),
            },
        }
        for config in configs
    }
    return {"conditioners": tables, "fuser": {"sum": [config.name for config in configs]}}
