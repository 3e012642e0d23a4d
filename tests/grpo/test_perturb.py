"""Which perturbation a group hears: a draw of its own, a ramp, fixed levels for the grid."""

import numpy as np
import pytest

from grpo.perturb import PERTURBATIONS, PerturbConfig, codec_trip, perturb, robustness_grid

RATE = 24_000


@pytest.fixture(scope="module")
def pcm():
    return np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


def other(rng):
    return rng.normal(0, 0.1, RATE).astype(np.float32)


def hear(pcm, config, index, step=0, codec=None):
    return perturb(pcm, config, index=index, step=step, other=other, codec=codec)


def test_nothing_is_done_by_default(pcm):
    heard, applied = hear(pcm, PerturbConfig(), 3)
    assert heard is pcm
    assert applied == {}


def test_a_group_hears_the_same_every_time_and_another_something_else(pcm):
    config = PerturbConfig(probability=1.0)
    one, same, another = (hear(pcm, config, index) for index in (3, 3, 4))
    np.testing.assert_array_equal(one[0], same[0])
    assert one[1] == same[1] != another[1]
    assert not np.array_equal(one[0], pcm)
    seeded = hear(pcm, PerturbConfig(probability=1.0, seed=1), 3)
    assert seeded[1] != one[1]


def test_draws_reach_every_kind_within_its_levels(pcm):
    config = PerturbConfig(probability=0.5)
    drawn = [hear(pcm[:2400], config, index)[1] for index in range(400)]
    share = np.mean([bool(applied) for applied in drawn])
    assert share == pytest.approx(0.5, abs=0.08)
    counts = [len(applied) for applied in drawn if applied]
    assert set(counts) == {1, 2}
    levels = {}
    for applied in drawn:
        for name, level in applied.items():
            levels.setdefault(name, []).append(level)
    assert set(levels) == set(config.kinds) == set(PERTURBATIONS) - {"codec"}
    for name, found in levels.items():
        low, high = sorted((PERTURBATIONS[name].low, PERTURBATIONS[name].high))
        assert low <= min(found) <= max(found) <= high


def test_the_probability_grows_with_the_steps(pcm):
    config = PerturbConfig(probability=1.0, ramp_steps=11)

    def share(step):
        return np.mean([bool(hear(pcm[:240], config, i, step)[1]) for i in range(200)])

    assert share(0) == 0.0
    assert share(5) == pytest.approx(0.5, abs=0.12)
    assert share(10) == share(99) == 1.0


def test_a_fixed_level(pcm):
    config = PerturbConfig(probability=1.0, kinds=("gain",), level=-20.0)
    heard, applied = hear(pcm, config, 0)
    assert applied == {"gain": -20.0}
    np.testing.assert_allclose(heard, pcm * 0.1, atol=1e-7)


def test_the_codec_is_called_with_whole_codebooks(pcm):
    config = PerturbConfig(probability=1.0, kinds=("codec",))
    assert config.needs_codec()
    assert not PerturbConfig(kinds=("codec",)).needs_codec()
    seen = [hear(pcm, config, i, codec=lambda pcm, k: pcm * k)[1]["codec"] for i in range(100)]
    assert set(seen) == set(map(float, range(1, 9)))
    with pytest.raises(ValueError, match="codec: got none"):
        hear(pcm, config, 0)


def test_the_grid_is_every_level_of_every_kind(pcm):
    grid = robustness_grid()
    assert len(grid) == 1 + sum(len(kind.grid) for kind in PERTURBATIONS.values())
    assert next(iter(grid)) == "clean"
    assert hear(pcm, grid["clean"], 0)[1] == {}
    assert hear(pcm, grid["white 20 dB SNR"], 0)[1] == {"white": 20.0}
    assert list(robustness_grid(("telephone",))) == [
        "clean",
        "telephone 8 bits",
        "telephone 6 bits",
    ]
    with pytest.raises(ValueError, match="kind: got 'x'"):
        robustness_grid(("x",))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"probability": 1.5}, "probability"),
        ({"ramp_steps": 0}, "ramp_steps"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("fog",)}, "kinds"),
        ({"max_kinds": 0}, "max_kinds"),
        ({"level": 1.0}, "level"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, name):
    with pytest.raises(ValueError, match=rf"^{name}: got .*, expected "):
        PerturbConfig(**fields)


@pytest.mark.slow
def test_a_trip_through_the_codec(small):
    """As encode, cut and decode give it, whatever the number of codebooks, compiled once."""
    import jax.numpy as jnp

    from mimi_jax import decode, encode

    codec = codec_trip(small.mimi, small.mimi_params)
    samples = 40 * small.frame - 5
    pcm = np.random.default_rng(0).normal(0, 0.3, samples).astype(np.float32)
    codes = encode(small.mimi, small.mimi_params, jnp.asarray(pcm[None]))
    whole = np.asarray(decode(small.mimi, small.mimi_params, codes))[0, :samples]
    np.testing.assert_allclose(codec(pcm, 2), whole, atol=1e-5)
    one = codec(pcm, 1)
    assert one.shape == pcm.shape
    assert np.abs(one - whole).max() > 1e-3
    np.testing.assert_allclose(
        codec(pcm[: 20 * small.frame], 1), one[: 20 * small.frame], atol=1e-5
    )
    for codebooks in (0, 3):
        with pytest.raises(ValueError, match=rf"codebooks: got {codebooks}, expected 1 to 2"):
            codec(pcm, codebooks)
