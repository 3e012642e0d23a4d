import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches numpy bfloat16 before a file is read)
import numpy as np
import pytest
from safetensors.numpy import save_file

from moshi_jax.verify import main
from moshi_jax.verify.check import NEAR_TIE, close, equal, equal_rows
from moshi_jax.verify.recording import read_recording
from moshi_jax.verify.session import checkpoint_folder

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def written(tmp_path):
    """`written(name, recording, ...)`: a recording file in a folder of its own."""

    def write(name, golden=None, *, config=None, tensors=None, weights=None, provenance=None):
        def chosen(given, attribute):
            return getattr(golden, attribute) if given is None and golden else given or {}

        weights = {f"weights/{k}": v for k, v in chosen(weights, "weights").items()}
        metadata = {
            "config": json.dumps(chosen(config, "config")),
            "provenance": json.dumps(chosen(provenance, "provenance")),
        }
        path = tmp_path / f"{name}.safetensors"
        save_file({**chosen(tensors, "tensors"), **weights}, path, metadata)
        return path

    return write


def only(tensors, *runs):
    """The tensors of some runs."""
    kept = ("inputs/user", *(f"{part}/{run}/" for run in runs for part in ("inputs", "expected")))
    return {key: value for key, value in tensors.items() if key.startswith(kept)}


def output(capsys, argv):
    code = main([str(argument) for argument in argv])
    return code, capsys.readouterr().out.splitlines()


def test_recordings_that_can_be_repeated_are_ok(golden, written, capsys):
    """A free run with acoustic delay 2, and the forward of all frames, with and without holes."""
    for name, runs in (
        ("lm_kyutai_delay2", ["greedy"]),
        ("lm_kyutai", ["forward", "forward_masked"]),
    ):
        recording = golden(name)
        path = written(name, recording, tensors=only(recording.tensors, *runs))
    code, lines = output(capsys, [path.parent])
    assert code == 0
    assert lines[0].startswith("device cpu ")
    assert lines[1].startswith("lm_kyutai: ok, forward text ")
    assert "; forward_masked audio " in lines[1] and "forward audio mask 632/632 equal" in lines[1]
    assert lines[2:] == [
        "lm_kyutai_delay2: ok, greedy 60/60 calls equal; greedy valid 60/60 equal",
        "2 ok, 0 not, of 2 recordings",
    ]


def test_a_model_that_only_listens_is_ok(capsys):
    code, lines = output(capsys, [GOLDEN, "--only", "lm_stt_like"])
    assert code == 0
    assert lines[1].startswith("lm_stt_like: ok, greedy 60/60 calls equal; ")
    assert "extra heads " in lines[1] and "forward text " in lines[1]


def test_a_codec_with_the_forks_ring_is_ok(capsys):
    code, lines = output(capsys, [GOLDEN, "--only", "mimi_personaplex"])
    assert code == 0
    assert lines[1].startswith("mimi_personaplex: ok, stream codes 480/480 equal; stream pcm ")


def test_a_recording_with_its_checkpoint_beside_it_is_a_session(capsys):
    name = "checkpoint_moshi_tiny_e2e"
    code, lines = output(capsys, [GOLDEN, "--only", name])
    assert code == 0
    assert lines[1].startswith(f"{name}: ok, session tokens 40/40 calls equal; session pcm ")


@pytest.mark.slow
def test_adapters_beside_their_kernels_and_fused_into_them_are_ok(capsys):
    code, lines = output(capsys, [GOLDEN, "--only", "lora"])
    assert code == 0
    for expected in (
        "unfused 40/40 calls equal",
        "fused 40/40 calls equal",
        "unfused audio mask 312/312 equal",
        "fused_weights_f32 0.0e+00",
        "fused_weights_bf16 0 bf16 steps",
    ):
        assert expected in lines[1]


def test_a_wrong_adapter_fails(golden, written, capsys):
    """The factor of one step in place of another's, where a rule table could be off by one."""
    recording = golden("lora")
    kept = ("lora_weights/", "expected/fused_weights")
    tensors = {k: v for k, v in recording.tensors.items() if k.startswith(kept)}
    written("right", recording, tensors=tensors)
    name = "lora_weights/depformer.layers.0.self_attn.in_projs.{}.lora_B.weight"
    swapped = {**tensors, name.format(1): tensors[name.format(2)]}
    path = written("swapped", recording, tensors=swapped)
    code, lines = output(capsys, [path.parent])
    assert code == 1
    assert lines[1].startswith("right: ok, fused_weights_f32 ")
    assert lines[2].startswith("swapped: FAILED, FAILED fused_weights_f32 ")


@pytest.mark.slow
def test_every_run_that_was_recorded_is_ok(capsys):
    names = "lm_kyutai,lm_rope_concat,mimi_kyutai,lm_hibiki_like,personaplex_lm,train_loss"
    code, lines = output(capsys, [GOLDEN, "--only", names])
    assert code == 0
    runs = "greedy|batch|reset_in_sync|sampled|sampled_clip|forward text|forward_masked text|bf16"
    kyutai = next(line for line in lines if line.startswith("lm_kyutai: "))
    assert all(f" {run} " in kyutai for run in runs.split("|"))
    by_name = {line.split(":")[0]: line for line in lines}
    assert by_name["lm_rope_concat"].startswith("lm_rope_concat: ok, greedy 60/60 calls equal; ")
    codec = by_name["mimi_kyutai"]
    assert all(f" {run} codes " in codec for run in ("stream", "full", "partial", "batch"))
    assert "cfg 30/30 calls equal" in by_name["lm_hibiki_like"]
    for part in (
        "forced 60/60 calls equal",
        "session 74/74 calls equal",
        "prompt in one pass 40/40 calls equal",
        "prompt from its stored voice 40/40 calls equal",
        "selfplay 50/50 calls equal",
        "selfplay_long 50/50 calls equal",
        "sampled 30/30 calls equal",
        "selfplay_long_forward audio ",
    ):
        assert part in by_name["personaplex_lm"]
    for part in ("default loss ", "example gradient norms ", "grads/emb.12.weight "):
        assert part in by_name["train_loss"]


def test_a_wrong_token_fails_and_the_call_is_named(golden, written, capsys):
    """The same recorded run, one token changed."""
    recording = golden("lm_kyutai_delay2")
    tensors = only(recording.tensors, "greedy")
    out = tensors["expected/greedy/out"].copy()
    out[31, 0, 4] += 1
    path = written("altered", recording, tensors={**tensors, "expected/greedy/out": out})
    code, lines = output(capsys, [path.parent])
    assert code == 1
    assert lines[1].startswith(
        "altered: FAILED, FAILED greedy 31/60 calls equal, call 31 differs; greedy valid 60/60"
    )
    assert lines[-1] == "0 ok, 1 not, of 1 recordings"


def test_a_recording_without_a_model_is_skipped_and_alone_is_no_success(written, capsys):
    path = written("lonely_e2e", tensors={"expected/out": np.zeros(1, np.int32)})
    code, lines = output(capsys, [path.parent])
    assert code == 1
    assert lines[1].startswith("lonely_e2e: skipped, ")
    assert lines[2] == "0 ok, 0 not, of 1 recordings"


WEIGHTS = {"any": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"rotary": 3}, "unknown switch 'rotary'"),
        ({"cross_attention": True}, "'cross_attention' is True, expected False"),
        ({}, "runs ['beam'], expected some of ['batch', 'cfg', 'forward', "),
        (None, "its config describes neither a codec nor a language model"),
    ],
)
def test_what_is_not_implemented_is_reported_as_that(golden, written, capsys, change, reason):
    config = {"words": 3} if change is None else {**golden("lm_kyutai_delay2").config, **change}
    tensors = {"expected/beam/out": np.zeros(1, np.int32)}
    path = written("strange", config=config, weights=WEIGHTS, tensors=tensors)
    code, lines = output(capsys, [path.parent])
    assert code == 1
    assert lines[1].startswith("strange: unsupported, ") and reason in lines[1]
    assert lines[2] == "0 ok, 1 not, of 1 recordings"


def test_recordings_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"recordings \['lm_x', 'y'\] not found in .*--only"):
        main([str(GOLDEN), "--only", "y,ops,lm_x"])


def test_a_folder_without_recordings_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"recordings \*\.safetensors not found in"):
        main([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"none is not a folder, expected one with record"):
        main([str(tmp_path / "none")])


def test_other_safetensors_are_no_recordings(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"model\.safetensors has no readable 'config' in its head"
    ):
        main([str(tmp_path)])


def test_a_recording_knows_its_runs_and_whose_ring_it_had():
    kyutai, fork = (
        read_recording(GOLDEN / f"{name}.safetensors") for name in ("lm_kyutai", "mimi_personaplex")
    )
    assert {"greedy", "batch", "sampled", "forward"} < kyutai.runs
    assert set(kyutai.inputs("batch")) >= {"user", "exec_mask", "reset_mask"}
    assert set(fork.expected("stream")) == {"codes", "latent", "margin", "pcm"}
    assert (kyutai.ring, fork.ring) == ("kyutai", "personaplex")
    assert kyutai.name == "lm_kyutai" and checkpoint_folder(kyutai) is None
    assert not any(key.startswith("weights/") for key in kyutai.tensors)


def test_distances_are_held_against_a_limit():
    expected = np.array([1.0, 2.0])
    assert close("x", expected + 1e-6, expected, 1e-5).passed
    failed = close("x", expected - 2e-5, expected, 1e-5)
    assert not failed.passed and failed.text == "x 2.0e-05 (limit 1e-05)"
    assert not close("x", np.array([np.nan, 2.0]), expected, 1e-5).passed


def test_equality_counts_only_what_it_is_told_to():
    got, expected = np.array([[1, 2], [3, 4]]), np.array([[1, 9], [3, 4]])
    assert not equal("x", got, expected, np.ones((2, 2), bool)).passed
    check = equal("x", got, expected, np.array([[True, False], [True, True]]))
    assert check.passed and check.text == "x 3/3 equal"
    assert not equal("x", got, expected, np.zeros((2, 2), bool)).passed  # nothing was compared


def run_of(length, wrong=None):
    expected = np.arange(2 * length).reshape(length, 2)
    got = expected.copy()
    if wrong is not None:
        got[wrong:] += 1
    return got, expected, np.ones(length, bool)


def test_a_run_may_part_at_a_near_tie_and_is_compared_up_to_there():
    margin = np.full(8, 0.5)
    margin[3] = NEAR_TIE / 2
    check = equal_rows("x", *run_of(8, wrong=5), margin)
    assert check.passed
    assert check.text == (
        "x 5/8 calls equal, then a near tie of call 3 (margin 5e-04) fell the other way"
    )


@pytest.mark.parametrize("tie", [None, 6])
def test_a_run_that_parts_without_a_tie_before_it_fails(tie):
    margin = np.full(8, NEAR_TIE)
    if tie is not None:
        margin[tie] = 0
    check = equal_rows("x", *run_of(8, wrong=5), margin)
    assert not check.passed and check.text == "x 5/8 calls equal, call 5 differs"
    assert not equal_rows("x", *run_of(8, wrong=5), None).passed


def test_calls_that_are_not_counted_may_differ():
    got, expected, counted = run_of(8)
    got[0] = -2
    assert not equal_rows("x", got, expected, counted, None).passed
    counted[0] = False
    check = equal_rows("x", got, expected, counted, None)
    assert check.passed and check.text == "x 8/8 calls equal"
    assert not equal_rows("x", got, expected, np.zeros(8, bool), None).passed
