"""GRPO post-training of full-duplex speech models on two-channel conversations."""

from grpo.config import GRPOConfig
from grpo.rollout import Trajectory
from grpo.train import train

__all__ = ["GRPOConfig", "Trajectory", "train"]
