"""The PyTorch reference as an oracle for whole checkpoint folders."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def tokens_in_pytorch() -> Callable[[Path, np.ndarray], np.ndarray]:
    """(folder, user's pcm [S] at 24 kHz) to tokens [T, 1 + Q]; skips where moshi is absent.

    moshi 0.2.13 loads the folder strictly and streams it as its server does, greedy, in float32.
    """
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("moshi.models.loaders")
    from moshi.models import LMGen

    def stream(folder: Path, pcm: np.ndarray) -> np.ndarray:
        values = json.loads((folder / "config.json").read_text())
        info = loaders.CheckpointInfo.from_hf_repo(
            "here/locally",  # every file is given, so no repository is asked
            moshi_weights=folder / values["moshi_name"],
            mimi_weights=folder / values["mimi_name"],
            tokenizer=folder / values["tokenizer_name"],
            config_path=folder / "config.json",
            mimi_config_path=folder / values["mimi_config_name"],
        )
        mimi = info.get_mimi(device="cpu")
        generator = LMGen(info.get_moshi(device="cpu", dtype=torch.float32), use_sampling=False)
        frames = np.pad(pcm, (0, -len(pcm) % 1920)).reshape(-1, 1, 1, 1920)
        tokens = []
        with torch.no_grad(), mimi.streaming(1), generator.streaming(1):
            for frame in [np.zeros_like(frames[0]), *frames]:
                codes = mimi.encode(torch.from_numpy(frame))
                if not tokens:  # the server's way: the model does not hear the first frame
                    mimi.reset_streaming()
                tokens.append(generator.step(codes))
        assert tokens[0] is None
        return np.stack([row[0, :, 0].numpy() for row in tokens[1:]])

    return stream
