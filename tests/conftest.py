"""What every test shares: emulated devices, exact matrix products, the recorded reference data."""

import dataclasses
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import ml_dtypes  # noqa: F401  (teaches numpy bfloat16 before a file is read)
import numpy as np
import pytest
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
GOLDEN_FOLDER = ROOT / "tests" / "golden"

# Shapes and types in signatures are checked in every room, so before any is imported. An int
# is a float, as PEP 484 has it: a setting that the pytest option of jaxtyping cannot take along.
jaxtyping.install_import_hook(
    PACKAGES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

# But not the fields of pytrees: JAX rebuilds those with shapes, shardings or None for leaves.
_register_dataclass = jax.tree_util.register_dataclass


def _register_unchecked(cls: type, *args: Any, **kwargs: Any) -> type:
    cls.__no_type_check__ = True
    return _register_dataclass(cls, *args, **kwargs)


jax.tree_util.register_dataclass = _register_unchecked

# Before any backend starts, and for the processes that tests start too. Many tests compile the same
# programs, half a minute of work each: they share a cache on disk (its size limit brings its lock).
SETTINGS = {
    "jax_platforms": "cpu",
    "jax_compilation_cache_dir": str(ROOT / ".pytest_cache" / "jax"),
    "jax_compilation_cache_max_size": 2**30,
    "jax_persistent_cache_min_compile_time_secs": 0.5,
}
for name, value in SETTINGS.items():
    setting = os.environ.setdefault(name.upper(), str(value))
    jax.config.update(name, type(value)(setting))

# No test asks the network: what is not in a cache that a test made is not there.
os.environ["HF_HUB_OFFLINE"] = "1"

# The reference decides when it is imported whether it compiles; its recordings were made without.
os.environ["NO_TORCH_COMPILE"] = "1"

# Compiling is most of the suite's work, and results do not depend on how hard LLVM tries. What
# commands run is compiled as users have it: .ci/run repeats the recorded cases that way.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Meshes of 1, 2, 4 and 8 devices are slices of jax.devices().
jax.config.update("jax_num_cpu_devices", 8)
# The reference computes in float32: so must every matrix product, on any device.
jax.config.update("jax_default_matmul_precision", "highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """One recorded run of the PyTorch reference: `config, tensors, weights = golden(name)`.

    `weights` holds the published key names, `tensors` the rest (`inputs/...`, `expected/...`).
    """

    config: dict[str, Any]
    provenance: dict[str, Any]
    tensors: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter((self.config, self.tensors, self.weights))


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """`golden(name)` reads `tests/golden/NAME.safetensors`."""

    def read(name: str) -> Golden:
        with safe_open(GOLDEN_FOLDER / f"{name}.safetensors", "numpy") as file:
            metadata = file.metadata()
            everything = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        prefix = "weights/"
        return Golden(
            config=json.loads(metadata["config"]),
            provenance=json.loads(metadata["provenance"]),
            tensors={k: v for k, v in everything.items() if not k.startswith(prefix)},
            weights={k[len(prefix) :]: v for k, v in everything.items() if k.startswith(prefix)},
        )

    return read


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """The recorded checkpoint folder, as Kyutai publishes one."""
    return GOLDEN_FOLDER / "checkpoint_moshi_tiny"


@pytest.fixture(scope="session")
def personaplex_checkpoint() -> tuple[Path, Path]:
    """The recorded folder as NVIDIA publishes one, and the file that says its shapes."""
    folder = GOLDEN_FOLDER / "checkpoint_personaplex_tiny"
    return folder, folder.with_name(f"{folder.name}.arch.json")


@pytest.fixture(scope="session")
def random_module() -> Callable[..., tuple[Any, Any]]:
    """`random_module(build, seed)`: what `build` makes, holding shapes, and random parameters.

    Drawn by numpy: initialising eagerly would compile a program for each shape.
    """
    from layers_jax.functional import abstract, split  # after the import hook above

    def make(build: Callable[[], Any], seed: int = 0) -> tuple[Any, Any]:
        module, rng = abstract(build), np.random.default_rng(seed)

        def leaf(shape: Any) -> jax.Array:
            scale = 1.0 if len(shape.shape) < 2 else shape.shape[0] ** -0.5
            values = rng.standard_normal(shape.shape) * scale
            return jax.numpy.asarray(values.astype(shape.dtype))

        return module, jax.tree.map(leaf, split(module)[1])

    return make
