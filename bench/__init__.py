"""What a frame costs: measured on the device at hand, compiled for one that is not."""

from bench.machine import describe_machine
from bench.timing import Samples, alternate

__all__ = ["Samples", "alternate", "describe_machine"]
