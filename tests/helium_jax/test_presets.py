import json
from pathlib import Path

from helium_jax import MoshiConfig, as_personaplex, helium_2b, moshi_7b, personaplex_7b

KEYS_FOLDER = Path(__file__).resolve().parent.parent / "golden" / "keys"


def published(name):
    return MoshiConfig.from_dict(json.loads((KEYS_FOLDER / f"{name}.json").read_text())["config"])


def test_presets_are_the_published_architectures():
    assert moshi_7b() == published("moshi_7b")
    assert personaplex_7b() == as_personaplex(published("personaplex_7b"))


def test_personaplex_generates_all_codebooks_and_hears_half_of_them():
    config = personaplex_7b()
    assert (config.dep_q, config.num_user_codebooks, config.num_depth_weight_sets) == (16, 8, 16)
    assert (config.timing, config.ring, config.last_codebook_sees_text) == (
        "personaplex",
        "personaplex",
        False,
    )


def test_helium_is_the_text_side_alone():
    config = helium_2b()
    assert config.num_streams == 1 and config.initial_tokens == (1,)
    # Rows of the published table and head, and the width of its gated blocks.
    assert (config.text_card + 1, config.num_text_logits) == (48_000, 48_000)
    assert config.temporal.hidden == 7040 and config.temporal.head_dim == 128
