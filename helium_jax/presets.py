"""The models by name."""

from dataclasses import replace

from helium_jax.config import MoshiConfig


def moshi_7b() -> MoshiConfig:
    """Moshi 7B as released (v0.1): 7.69 B parameters."""
    return MoshiConfig()


def personaplex_7b() -> MoshiConfig:
    """NVIDIA's PersonaPlex 7B (v1) as its own code runs it: 8.37 B parameters.

    Its files do not say their architecture. Source: moshi/models/loaders.py of NVIDIA/personaplex.
    """
    return as_personaplex(replace(moshi_7b(), dep_q=16))


def as_personaplex(config: MoshiConfig) -> MoshiConfig:
    """The same shapes, run as NVIDIA's code does: ring rule, timing, depth cache."""
    return replace(config, ring="personaplex", timing="personaplex", last_codebook_sees_text=False)


def helium_2b() -> MoshiConfig:
    """Helium-1 2B (preview), the text model that Moshi's smaller variants start from.

    Its table has no row for an initial token: the sequence starts with BOS (1). Source:
    `config_helium_1_preview_2b` in moshi_mlx/models/lm.py.
    """
    return MoshiConfig(
        dim=2560,
        text_card=47_999,
        text_card_out=48_000,
        n_q=0,
        dep_q=0,
        num_heads=20,
        num_layers=24,
        context=4096,
        max_period=100_000,
        delays=(0,),
        text_initial=1,
    )


def nano() -> MoshiConfig:
    """Moshi's architecture at a size for tests and laptops."""
    return MoshiConfig(
        dim=64,
        text_card=255,
        card=64,
        num_heads=4,
        num_layers=2,
        context=40,
        depformer_dim=32,
        depformer_dim_feedforward=132,
        depformer_num_heads=2,
        depformer_num_layers=2,
    )
