"""What a training leaves, as a release for the PyTorch runtimes."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from convert import export_lora, export_moshi
from grpo.adapters import fused
from helium_jax import Moshi, unstack_layers
from layers_jax import split_adapters
from layers_jax.functional import Params

logger = logging.getLogger("grpo")


def export_trained(
    folder: Path, checkpoint: Path, lm: Moshi, params: Any, *, dtypes: Any = "float32"
) -> Params:
    """Write a trained model as a release: adapters added in and, beside it, on their own.

    Args:
        folder: of the release; what is there is left alone.
        checkpoint: what the training started from: configs, codec and tokenizer are its.
        lm: the model's definition, layers listed.
        params: its parameters, whole, on the host, layers stacked.
        dtypes: number format of the release.

    Returns:
        Host parameters, layers listed, as exported.
    """
    trained = unstack_layers(params)
    adapters, plain = None, lm.config
    if lm.config.lora is not None:
        adapters, plain = split_adapters(trained)[0], replace(lm.config, lora=None)
        trained = fused(trained, lm.config.lora.scaling)
    if not folder.exists() and jax.process_index() == 0:
        export_moshi(folder, plain, trained, source=checkpoint, dtypes=dtypes)
        logger.info("exported to %s", folder)
        if adapters is not None:
            export_lora(folder.with_name("lora.safetensors"), lm.config, adapters)
    return trained
