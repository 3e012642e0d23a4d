import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from rewards import VadConfig, detect_speech, load_vad, speech_intervals

HOP = 512


def samples_of(intervals):
    return [tuple(round(time * 16_000) for time in interval) for interval in intervals]


def intervals(pattern, num_samples=None, **config):
    """`pattern`: (probability, hops) pairs."""
    probabilities = np.concatenate([np.full(hops, value) for value, hops in pattern])
    num_samples = len(probabilities) * HOP if num_samples is None else num_samples
    return samples_of(speech_intervals(probabilities, num_samples, VadConfig(**config)))


def test_speech_begins_at_the_threshold_and_is_padded():
    assert intervals([(0.0, 10), (0.5, 20), (0.0, 10)]) == [(10 * HOP - 480, 30 * HOP + 480)]
    assert intervals([(0.0, 10), (0.499, 20), (0.0, 10)]) == []


def test_padding_stays_inside_the_recording():
    assert intervals([(1.0, 20)], num_samples=20 * HOP - 100) == [(0, 20 * HOP - 100)]
    assert intervals([(1.0, 20), (0.0, 5)]) == [(0, 20 * HOP + 480)]
    assert intervals([(1.0, 20), (0.0, 4)]) == [(0, 24 * HOP)]  # the silence is not yet known


def test_between_the_thresholds_nothing_changes():
    middle = [(1.0, 10), (0.4, 30), (0.0, 10)]
    assert intervals(middle) == [(0, 40 * HOP + 480)]
    assert intervals([(0.4, 30), (1.0, 10), (0.0, 10)]) == [(30 * HOP - 480, 40 * HOP + 480)]
    # A silence that began is not interrupted by it either: only by reaching the threshold.
    assert intervals([(1.0, 10), (0.0, 1), (0.4, 3), (0.0, 6)]) == [(0, 10 * HOP + 480)]


def test_silence_must_last_a_tenth_of_a_second():
    # Known 4 hops (128 ms) after it began: its fifth hop.
    assert intervals([(1.0, 10), (0.0, 4), (1.0, 10)]) == [(0, 24 * HOP)]
    two = intervals([(1.0, 10), (0.0, 5), (1.0, 10)])
    assert two == [(0, 10 * HOP + 480), (15 * HOP - 480, 25 * HOP)]
    joined = intervals([(1.0, 10), (0.0, 5), (1.0, 10)], min_silence_s=0.2)
    assert joined == [(0, 25 * HOP)]
    assert intervals([(1.0, 10), (0.0, 5), (1.0, 10)], min_silence_s=4 * HOP / 16_000) == two


def test_short_speech_is_dropped_before_padding():
    # 250 ms are 7.8 hops.
    assert intervals([(0.0, 9), (1.0, 7), (0.0, 9)]) == []
    assert intervals([(0.0, 9), (1.0, 8), (0.0, 9)]) == [(9 * HOP - 480, 17 * HOP + 480)]
    short = intervals([(0.0, 9), (1.0, 5), (0.0, 9)], min_speech_s=0.12)
    assert short == [(9 * HOP - 480, 14 * HOP + 480)]
    exactly = intervals([(0.0, 9), (1.0, 5), (0.0, 9)], min_speech_s=0.16)
    assert exactly == []  # must be longer


def test_neighbours_share_a_silence_shorter_than_both_pads():
    result = intervals([(1.0, 10), (0.0, 5), (1.0, 10)], pad_s=0.1)
    middle = 10 * HOP + 5 * HOP // 2
    assert result == [(0, middle), (middle, 25 * HOP)]


def test_nothing_but_silence():
    assert intervals([(0.0, 30)]) == []


def test_wrong_number_of_probabilities_or_nan_is_an_error():
    with pytest.raises(ValueError, match="3 probabilities, expected 4 for 1537 samples"):
        speech_intervals(np.zeros(3), 3 * HOP + 1)
    with pytest.raises(ValueError, match="NaN"):
        speech_intervals(np.array([0.0, np.nan]), 2 * HOP)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 0.3}, "negative_threshold 0.35 and threshold 0.3"),
        ({"negative_threshold": 0.0}, "0 < negative_threshold"),
        ({"threshold": 1.0}, "threshold < 1"),
        ({"pad_s": -0.1}, "pad_s is -0.1"),
        ({"min_speech_s": float("nan")}, "min_speech_s is nan"),
    ],
)
def test_wrong_configs_are_errors(config, message):
    with pytest.raises(ValueError, match=message):
        VadConfig(**config)


@pytest.fixture(scope="module")
def params():
    return load_vad()


@pytest.fixture(scope="module")
def recording(golden):
    """The recorded speech, int16 at 16 kHz, and its timestamps in samples."""
    tensors = golden("silero_vad").tensors
    return tensors["inputs/speech"], tensors["expected/speech/timestamps"]


def with_silence(pcm):
    """A batch of two: every test here has the same shape and compiles the network once."""
    return np.stack([pcm, 0 * pcm]).astype(np.float32)


def test_detect_speech_equals_the_recorded_reference(params, recording):
    pcm, expected = recording
    speech, silence = detect_speech(params, with_silence(pcm / 32768), sample_rate=16_000)
    assert samples_of(speech) == [tuple(row) for row in expected.tolist()]
    assert len(speech) == 6
    assert silence == []


def test_recorded_noise_has_no_speech(golden):
    tensors = golden("silero_vad").tensors
    probabilities = tensors["expected/noise/probabilities"]
    assert tensors["expected/noise/timestamps"].shape == (0, 2)
    assert speech_intervals(probabilities, len(tensors["inputs/noise"])) == []


def test_detect_speech_at_24_khz(params, recording):
    soxr = pytest.importorskip("soxr")
    pcm, expected = recording
    at_24k = jnp.asarray(with_silence(soxr.resample(pcm / 32768, 16_000, 24_000)))
    speech, silence = detect_speech(params, at_24k, sample_rate=24_000)
    assert silence == []
    # Resampled twice: a border may move by a hop or two, none may appear or vanish.
    limit = 2 * HOP / 16_000 + 1e-6
    np.testing.assert_allclose(np.array(speech), expected / 16_000, rtol=0, atol=limit)


def test_detect_speech_refuses_other_rates_and_broken_audio(params):
    with pytest.raises(ValueError, match="sample_rate is 48000, expected 16000 or 24000"):
        detect_speech(params, np.zeros((1, 480), np.float32), sample_rate=48_000)
    with pytest.raises(ValueError, match="not finite"):
        detect_speech(params, with_silence(np.full(159_700, np.nan)), sample_rate=16_000)
    with pytest.raises(ValueError, match="0 samples"):
        detect_speech(params, np.zeros((1, 0), np.float32), sample_rate=16_000)


@pytest.mark.parity
def test_state_machine_equals_silero_vad_on_random_probabilities():
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the imported package's own making
        utils = pytest.importorskip("silero_vad.utils_vad")
    rng = np.random.default_rng(0)
    found = 0
    for case in range(300):
        hops = int(rng.integers(1, 120))
        # A slow random walk over both thresholds, with runs of every length.
        walk = np.cumsum(rng.normal(0, rng.uniform(0.05, 0.6), hops)) + rng.normal(0, 1)
        probabilities = (1 / (1 + np.exp(-walk))).astype(np.float32)
        num_samples = (hops - 1) * HOP + int(rng.integers(1, HOP + 1))
        config = VadConfig() if case % 2 else VadConfig(
            threshold=0.6,
            negative_threshold=0.3,
            min_speech_s=0.12,
            min_silence_s=float(rng.integers(0, 300)) / 1000,
            pad_s=float(rng.integers(0, 120)) / 1000,
        )  # fmt: skip
        expected = utils.get_speech_timestamps_from_probs(
            probabilities.tolist(),
            threshold=config.threshold,
            neg_threshold=config.negative_threshold,
            min_speech_duration_ms=round(config.min_speech_s * 1000),
            min_silence_duration_ms=round(config.min_silence_s * 1000),
            speech_pad_ms=round(config.pad_s * 1000),
            audio_length_samples=num_samples,
        )
        result = speech_intervals(probabilities, num_samples, config)
        assert result == [(i["start"] / 16_000, i["end"] / 16_000) for i in expected]
        found += len(result)
    assert found > 200


@pytest.mark.parity
def test_detect_speech_equals_the_live_reference(params, recording):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        silero_vad = pytest.importorskip("silero_vad")
        model = silero_vad.load_silero_vad()
    pcm = recording[0][::-1] / 32768  # played backwards it is speech still, and another recording
    noisy = with_silence(pcm + 0.01 * np.random.default_rng(3).standard_normal(len(pcm)))
    expected = silero_vad.get_speech_timestamps(torch.from_numpy(noisy[0]), model)
    speech, _ = detect_speech(params, noisy, sample_rate=16_000)
    assert speech == [(i["start"] / 16_000, i["end"] / 16_000) for i in expected]
    assert len(speech) >= 3
