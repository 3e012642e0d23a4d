"""The recipe of the embedded checkpoint: its data, its codebooks, one update of its model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from helium_jax import Moshi, MoshiConfig
from layers_jax import Precision, bind
from mimi_jax import QuantizerConfig
from mimi_jax.quantizer import SplitResidualVQ
from recipes.tiny.codebooks import follow, quantize, start_codebooks
from recipes.tiny.codec_loss import mel_filters
from recipes.tiny.dialogues import SECONDS, compose
from recipes.tiny.interleaver import Word, spread_words, text_stream
from recipes.tiny.language_model import language_model_step
from recipes.tiny.speech import SAMPLE_RATE, Phrase, random_chunks, read_channels, read_turns

PIECES = {"one": [105], "three": [109, 110, 111], "four": [113, 114, 115, 116], "last": [101]}


def encode(text):
    return PIECES[text]


class TestTextStream:
    def test_a_later_word_takes_the_place_of_pieces_that_are_left(self):
        words = [
            Word("one", 0.30, 0.5),
            Word("three", 0.62, 0.9),
            Word("four", 1.0, 1.04),
            Word("last", 1.05, 1.2),
        ]
        expected = [3, 3, 0, 105, 3, 3, 0, 109, 110, 111, 3, 0, 113, 101, 3, 3]
        assert text_stream(words, 16, encode).tolist() == expected

    def test_a_word_in_the_first_frame_has_no_mark_before_it(self):
        assert text_stream([Word("one", 0.0, 0.2)], 3, encode).tolist() == [105, 3, 3]

    def test_a_word_without_duration_is_left_out(self):
        assert text_stream([Word("one", 0.5, 0.5)], 9, encode).tolist() == [3] * 9

    def test_the_words_of_a_phrase_share_its_time_by_letters(self):
        words = spread_words(Phrase("oh no there", np.zeros(SAMPLE_RATE * 2, np.float32)), 1.0)
        assert [word.text for word in words] == ["oh", "no", "there"]
        assert words[0].start_s == 1.0 and words[-1].end_s == pytest.approx(3.0)
        assert words[2].end_s - words[2].start_s == pytest.approx(1.0)


class TestData:
    def test_phrases_are_the_whole_recording(self):
        turns, channels = read_turns(), read_channels()
        for channel, speaker in enumerate(("agent", "user")):
            phrases = [p.pcm for turn in turns if turn.speaker == speaker for p in turn.phrases]
            energy = sum(float(np.sum(np.square(pcm))) for pcm in phrases)
            assert energy == pytest.approx(float(np.sum(np.square(channels[channel]))), rel=1e-3)

    def test_chunks_are_of_the_asked_length_and_mostly_speech(self):
        rng = np.random.default_rng(0)
        chunks = random_chunks(read_channels(), rng, batch=20, samples=9600)
        assert chunks.shape == (20, 9600)
        assert np.mean(np.abs(chunks).max(axis=1) > 0) > 0.6

    def test_a_dialogue_has_the_agents_words_where_its_channel_sounds(self):
        turns = read_turns()
        dialogue = compose(turns, np.random.default_rng(3))
        assert dialogue.pcm.shape == (2, round(SECONDS * SAMPLE_RATE))
        assert np.abs(dialogue.pcm).max(axis=1).min() > 0.05
        times = [word.start_s for word in dialogue.words]
        assert times == sorted(times)
        spoken = np.zeros(dialogue.pcm.shape[1], bool)
        for word in dialogue.words:
            spoken[int(word.start_s * SAMPLE_RATE) : int(word.end_s * SAMPLE_RATE) + 1] = True
        assert np.abs(dialogue.pcm[0][~spoken]).max() == 0

    def test_the_same_seed_gives_the_same_dialogue(self):
        turns = read_turns()
        first, second = (compose(turns, np.random.default_rng(5)) for _ in range(2))
        np.testing.assert_array_equal(first.pcm, second.pcm)
        assert first.words == second.words

    def test_mel_triangles_have_unit_sums_and_leave_no_band_empty(self):
        np.testing.assert_allclose(mel_filters(2048, 40).sum(axis=0), 1.0, rtol=1e-5)


class TestCodebooks:
    @pytest.fixture
    def quantizer(self, random_module):
        config = QuantizerConfig(dimension=4, n_q=3, bins=8)
        return random_module(
            lambda: SplitResidualVQ(6, config, precision=Precision.f32(), rngs=nnx.Rngs(0))
        )

    def error(self, module, params, latent):
        run = jax.jit(
            lambda p: quantize(bind(module, p), latent, jnp.ones(4, bool), jnp.full(4, 2))
        )
        out = run(params)
        return float(out.commitment), out

    def test_centres_of_the_latents_are_nearer_than_random_ones_and_following_helps(
        self, quantizer
    ):
        module, params = quantizer
        latent = jax.random.normal(jax.random.key(1), (4, 32, 6))
        start, _ = self.error(module, params, latent)
        params = start_codebooks(
            params, np.asarray(latent).reshape(-1, 6), np.random.default_rng(0)
        )
        centred, out = self.error(module, params, latent)
        assert centred < 0.5 * start
        moved = latent + 0.5
        before, out = self.error(module, params, moved)
        move = jax.jit(follow)
        for step in range(60):
            params = move(params, out.chains, jax.random.key(step))
        after, _ = self.error(module, params, moved)
        assert after < 0.8 * before
        book = params["semantic"]["codebooks"][0]
        np.testing.assert_allclose(
            book["embedding"], book["embedding_sum"] / book["cluster_usage"][:, None], rtol=1e-5
        )

    def test_gradients_pass_through_and_rows_that_are_off_are_not_quantized(self, quantizer):
        module, params = quantizer
        latent = jax.random.normal(jax.random.key(1), (2, 3, 6))
        on, levels = jnp.array([True, False]), jnp.array([0, 2])

        @jax.jit
        def output(x):
            return quantize(bind(module, params), x, on, levels).latent

        halves = [params[name] for name in ("semantic", "acoustic")]
        linear = sum(h["input_projection"]["kernel"] @ h["output_projection"]["kernel"]
                     for h in halves)  # fmt: skip
        np.testing.assert_allclose(output(latent)[1], latent[1] @ linear, rtol=1e-4, atol=1e-5)
        assert not np.allclose(output(latent)[0], latent[0] @ linear, atol=1e-2)
        gradient = jax.jit(jax.grad(lambda x: output(x)[0].sum()))(latent)[0]
        np.testing.assert_allclose(
            gradient, np.broadcast_to(linear.sum(axis=1), gradient.shape), rtol=1e-4, atol=1e-5
        )


def test_updates_on_one_batch_lower_both_losses(random_module):
    config = MoshiConfig(
        dim=16, text_card=20, card=8, n_q=4, dep_q=2, num_heads=2, num_layers=1, context=8,
        depformer_dim=8, depformer_dim_feedforward=16, depformer_num_heads=2,
        depformer_num_layers=1, delays=(0, 0, 1, 0, 1),
    )  # fmt: skip
    lm, params = random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    optimizer = optax.adam(1e-2)
    streams = np.random.default_rng(0).integers(0, 8, (2, 5, 12)).astype(np.int32)
    streams[:, :, -1] = -1
    opt_state, history = optimizer.init(params), []
    for _ in range(40):
        params, opt_state, metrics = language_model_step(
            lm, optimizer, params, opt_state, jnp.asarray(streams)
        )
        history.append(jax.tree.map(float, metrics))
    for name in ("text", "audio", "words", "first"):
        assert history[-1][name] < 0.7 * history[0][name], name
