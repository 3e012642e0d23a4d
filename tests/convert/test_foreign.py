"""Configs of transformers, its models themselves beside ours, and what is refused by name."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from convert import ConversionError, compare, load_moshi, read_configs, to_jax, to_torch
from convert.architecture import lm_from_config
from convert.foreign import (
    feedforward,
    from_transformers,
    is_transformers,
    refuse_file,
    refuse_tensors,
)
from convert.layouts import as_released
from convert.rules import flatten, plan
from convert.safetensors_io import MemoryTensors
from convert.sources import abstract_mimi, abstract_moshi, abstract_params, rules_of
from convert.tree import read_tree
from helium_jax import MoshiConfig, forward, forward_text, helium_2b, moshi_7b
from helium_jax.config import gated_width
from layers_jax import Precision
from mimi_jax import encode
from mimi_jax import nano as nano_mimi


def test_the_published_configs_are_those_of_the_released_models():
    """transformers leaves defaults out: an empty Moshi config is Moshi 7B."""
    found = lm_from_config(from_transformers({"model_type": "moshi", "hidden_size": 4096}))
    assert found == moshi_7b()
    found = lm_from_config(from_transformers({"model_type": "helium", "hidden_size": 2560}))
    shapes = ("n_q", "dep_q", "dim", "num_layers", "num_heads", "text_card", "text_card_out")
    shapes += ("context", "max_period", "delays", "text_initial")
    assert {k: getattr(found, k) for k in shapes} == {k: getattr(helium_2b(), k) for k in shapes}
    assert found.temporal.hidden == helium_2b().temporal.hidden == 7040


@pytest.mark.parametrize(("dim", "hidden"), [(4096, 11264), (64, 168), (1024, 2816), (24, 57)])
def test_a_gated_width_has_its_feedforward(dim, hidden):
    assert gated_width(dim, feedforward(dim, hidden)) == hidden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "csm"}, "expected 'moshi' or 'helium'"),
        ({"hidden_act": "gelu"}, "expected silu"),
        ({"rms_norm_eps": 1e-5}, "epsilon of 1e-8"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, "positions are scaled"),
        ({"model_type": "helium", "head_dim": 64}, "head_dim is 64"),
        ({"model_type": "helium", "attention_bias": True}, "biases"),
    ],
)
def test_what_the_released_code_cannot_express_is_refused(change, message):
    config = {"model_type": "moshi", "hidden_size": 4096, **change}
    if change.get("model_type") == "helium":
        config["hidden_size"] = 2560
    assert is_transformers(config)
    with pytest.raises(ValueError, match=message):
        from_transformers(config)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["audio_embs.0.weight", "out_norm.weight"], "MLX weights"),
        (["depformer.slices.0.emb.weight", "text_emb.scales"], "4- or 8-bit MLX"),
        (["depformer.0.transformer.layers.0.norm1.alpha"], "candle weights"),
        (["transformer.layers.0.cross_attention.gate.alpha"], "MoshiVis"),
        (["transformer.layers.0.norm_cross.weight"], "speech synthesis"),
        (["text_emb.out1.weight"], "demux"),
    ],
)
def test_other_layouts_are_refused_by_name(names, reason, tmp_path, tiny_checkpoint):
    with pytest.raises(ConversionError, match=reason):
        refuse_tensors(names, subject="x")
    folder = tmp_path / "folder"
    shutil.copytree(tiny_checkpoint, folder)
    save_file({name: np.ones(2, np.float32) for name in names}, folder / "model.safetensors")
    with pytest.raises(ConversionError, match=reason):
        load_moshi(folder)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"GGUF\x03\x00", "a GGUF file"),
        (b"PK\x03\x04....", "a pickle of PyTorch"),
        (b"\x80\x02}q\x00.", "a pickle of PyTorch"),
    ],
)
def test_other_files_are_refused_by_name(start, reason, tmp_path, tiny_checkpoint):
    folder = tmp_path / "folder"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "model.safetensors").write_bytes(start)
    with pytest.raises(ConversionError, match=reason):
        to_jax(folder, tmp_path / "x")
    refuse_file(tmp_path / "gone")
    refuse_file(tiny_checkpoint / "model.safetensors")


def params_of(config, tensors):
    seen, shapes = as_released(MemoryTensors(tensors), config), abstract_params(config)
    leaves = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    made = plan(rules_of(config), leaves, seen.tensors)
    return read_tree(made, seen, shapes, place=jnp.array, subject="transformers")


HELIUM = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 57, "num_hidden_layers": 2}
HELIUM |= {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4}
HELIUM |= {"max_position_embeddings": 40, "pad_token_id": 3}


def random_model(torch, model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and "inv_freq" not in name:
                scale = 0.5 if value.ndim < 2 else value[0].numel() ** -0.5
                value.copy_(torch.randn(value.shape, generator=generator) * scale)
                if value.ndim < 2:
                    value.add_(1).abs_()
    return model.eval()


def state(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


@pytest.mark.parity
def test_helium_of_transformers_gives_its_logits(torch):
    from transformers import HeliumConfig, HeliumForCausalLM

    model = random_model(torch, HeliumForCausalLM(HeliumConfig(**HELIUM)))
    config = lm_from_config(from_transformers(model.config.to_dict()))
    params = params_of(config, state(model))
    tokens = np.random.default_rng(0).integers(0, 50, (2, 12))
    fed = np.concatenate([np.ones((2, 1), int), tokens[:, :-1]], axis=1)  # after BOS
    with torch.no_grad():
        expected = model(torch.from_numpy(fed)).logits.numpy()
    module = abstract_moshi(config, Precision.f32())
    got = forward_text(module, params, jnp.asarray(tokens[:, None], jnp.int32))
    np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parity
def test_moshi_of_transformers_gives_its_logits(torch):
    from transformers import MoshiConfig as TheirConfig
    from transformers import MoshiForConditionalGeneration

    depth = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 44}
    theirs = TheirConfig(
        vocab_size=50, hidden_size=24, ffn_dim=114, num_hidden_layers=2, num_attention_heads=6,
        num_codebooks=3, audio_vocab_size=16, sliding_window=40, pad_token_id=3,
        audio_encoder_config={"model_type": "mimi", **MIMI}, depth_decoder_config=depth,
    )  # fmt: skip
    model = random_model(torch, MoshiForConditionalGeneration(theirs))
    values = from_transformers(json.loads(theirs.to_json_string(use_diff=False)))
    config = replace(lm_from_config(values), delays=(0,) * 7)
    params = params_of(config, state(model))
    rng = np.random.default_rng(0)
    text, audio = rng.integers(0, 50, (1, 1, 9)), rng.integers(0, 16, (1, 6, 9))
    codes = np.concatenate([text, audio], axis=1)
    first = np.array([50, *[16] * 6])[None, :, None]
    fed = torch.from_numpy(np.concatenate([first, codes[:, :, :-1]], axis=2))
    with torch.no_grad():
        embedded = model.decoder.model.embed_tokens(fed[:, 0])
        embedded = embedded + sum(model.embed_tokens[k](fed[:, 1 + k]) for k in range(6))
        hidden = model.decoder.model(inputs_embeds=embedded).last_hidden_state
        expected = model.decoder.lm_head(hidden)
        steps = torch.from_numpy(codes[0, :3].T.copy())  # text and all codebooks but the last
        depth = model.depth_decoder(input_ids=steps, last_hidden_state=hidden[0][:, None])
    module = abstract_moshi(config, Precision.f32())
    got = forward(module, params, jnp.asarray(codes, jnp.int32))
    np.testing.assert_allclose(got.text, expected.numpy(), atol=2e-4)
    np.testing.assert_allclose(got.audio[0].swapaxes(0, 1), depth.logits.numpy(), atol=2e-3)


MIMI = {
    "sampling_rate": 300, "hidden_size": 20, "num_filters": 6, "num_residual_layers": 2,
    "upsampling_ratios": [4, 3], "codebook_size": 16, "codebook_dim": 10, "num_quantizers": 4,
    "vector_quantization_hidden_dimension": 10, "upsample_groups": 20, "num_hidden_layers": 2,
    "intermediate_size": 28, "num_attention_heads": 2, "num_key_value_heads": 2,
    "sliding_window": 20, "frame_rate": 12.5,
}  # fmt: skip


@pytest.mark.parity
def test_mimi_of_transformers_gives_its_codes(torch):
    from transformers import MimiConfig as TheirConfig
    from transformers import MimiModel

    nano = nano_mimi()
    config = replace(
        nano,
        sample_rate=300,
        seanet=replace(nano.seanet, dimension=20, n_filters=6, n_residual_layers=2, ratios=(4, 3)),
        quantizer=replace(nano.quantizer, dimension=10, n_q=4, bins=16),
        transformer=replace(nano.transformer, dim=20, num_heads=2, num_layers=2, hidden=28),
        num_codebooks=4,
    )
    model = random_model(torch, MimiModel(TheirConfig(**MIMI)))
    params = params_of(config, state(model))
    pcm = np.random.default_rng(0).normal(size=(2, 24 * 15)).astype(np.float32)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(pcm)[:, None]).audio_codes.numpy()
    got = np.asarray(encode(abstract_mimi(config), params, jnp.asarray(pcm), mode="full"))
    assert len(np.unique(expected)) > 8
    np.testing.assert_array_equal(got, expected)


def test_a_folder_of_transformers_becomes_a_release(random_params, tmp_path):
    """Its config is written in Kyutai's keys, its weights under the released names."""
    config = lm_from_config(from_transformers({"model_type": "helium", **HELIUM}))
    params = random_params(config, dtypes=[np.dtype(np.float32)])
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "helium", **HELIUM}))
    save_file(helium_file(config, params), tmp_path / "hf" / "model.safetensors")
    found = read_configs(tmp_path / "hf")
    assert found.lm == config and found.parts == ["moshi"]
    to_jax(tmp_path / "hf", tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["n_q"] == 0 and "hidden_size" not in written
    module, back = load_moshi(tmp_path / "back")
    assert module.config == config == load_moshi(tmp_path / "jax")[0].config
    jax.tree.map(np.testing.assert_array_equal, back, params)
    assert compare(tmp_path / "hf", tmp_path / "back").differences == []


def helium_file(config: MoshiConfig, params):
    """A Helium as transformers names it, written by hand: no code of the importer."""
    made = {
        "model.embed_tokens.weight": params["text_embedding"]["table"],
        "lm_head.weight": params["text_head"]["kernel"].T,
        "model.norm.weight": params["out_norm"]["scale"],
    }
    for i, layer in enumerate(params["temporal"]["layers"]):
        name, qkv = f"model.layers.{i}", layer["attention"]["qkv"]["kernel"]  # [D, N, R + 2, H]
        rows = qkv.transpose(1, 2, 3, 0)
        made |= {
            f"{name}.input_layernorm.weight": layer["norm1"]["scale"],
            f"{name}.post_attention_layernorm.weight": layer["norm2"]["scale"],
            f"{name}.self_attn.q_proj.weight": rows[:, :-2].reshape(-1, config.dim),
            f"{name}.self_attn.k_proj.weight": rows[:, -2].reshape(-1, config.dim),
            f"{name}.self_attn.v_proj.weight": rows[:, -1].reshape(-1, config.dim),
            f"{name}.self_attn.o_proj.weight": layer["attention"]["out"]["kernel"].T,
            f"{name}.mlp.gate_proj.weight": layer["mlp"]["gate_up"]["kernel"][:, 0].T,
            f"{name}.mlp.up_proj.weight": layer["mlp"]["gate_up"]["kernel"][:, 1].T,
            f"{name}.mlp.down_proj.weight": layer["mlp"]["down"]["kernel"].T,
        }
    return {key: np.ascontiguousarray(value) for key, value in made.items()}
