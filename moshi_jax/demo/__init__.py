"""`moshi-jax demo`: the whole road once, on the embedded model, with the proof that it learned."""

from moshi_jax.demo.command import DemoOptions, main
from moshi_jax.demo.comparison import AxisResult, compare_axes, table
from moshi_jax.demo.experiment import Clock, Experiment, Recipe, Result, prepare
from moshi_jax.demo.exported import stream_tokens

__all__ = [
    "AxisResult",
    "Clock",
    "DemoOptions",
    "Experiment",
    "Recipe",
    "Result",
    "compare_axes",
    "main",
    "prepare",
    "stream_tokens",
    "table",
]
