import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bench import topology
from bench.topology import NAMES, describe


def compile_double(name, size=8):
    found = describe(name)
    sharding = NamedSharding(found.mesh(x=1), PartitionSpec())
    x = jax.ShapeDtypeStruct((size, 1024), jnp.float32, sharding=sharding)
    return found.compile(jax.jit(lambda x: x * 2).lower(x))


@pytest.mark.parametrize("name", ["v5e:2x4", "v5p:2x2x1", "v6e:2x4", "tpu7x:2x2x1"])
def test_a_slice_has_its_devices(name):
    pytest.importorskip("libtpu")
    chips = {"v5e:2x4": 8, "v5p:2x2x1": 4, "v6e:2x4": 8, "tpu7x:2x2x1": 8}
    assert len(describe(name).devices) == chips[name]


@pytest.mark.parametrize("name", ["v5e:1x1", "v5p:1x1x1", "v6e:1x1"])
def test_one_chip_compiles_without_a_warning_and_past_the_cache(name, recwarn):
    pytest.importorskip("libtpu")
    assert jax.config.jax_compilation_cache_dir
    for _ in range(2):  # what the first had stored, the second would fail to read
        assert "ENTRY" in compile_double(name).as_text()
    assert [str(warning.message) for warning in recwarn] == []
    assert jax.config.values["jax_enable_compilation_cache"]


def test_the_compiler_refuses_what_does_not_fit_the_memory_we_state():
    pytest.importorskip("libtpu")
    rows = describe("v5e:1x1").device.memory // 4096
    with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED"):
        compile_double("v5e:1x1", rows // 2 + 8192)
    assert compile_double("v5e:1x1", rows // 2 - 8192).memory_analysis() is not None


def test_a_gpu_is_described_without_one():
    pytest.importorskip("jax_plugins.xla_cuda12")
    found = describe("h100:8")
    assert len(found.devices) == 8 and found.platform == "cuda"
    assert "ENTRY" in compile_double("h100:1").as_text()


@pytest.mark.parametrize("name", ["v5e-8", "trillium:2x4", "v5e", "h100:one", ""])
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=r"unknown topology .*expected one of .*v5e:2x4.*h100:1"):
        describe(name)


def test_a_slice_that_does_not_exist_is_refused_with_the_compilers_reason():
    pytest.importorskip("libtpu")
    with pytest.raises(ValueError, match=r"v5e:3x5 is no slice.*divisible"):
        describe("v5e:3x5")


@pytest.mark.parametrize(("name", "extra"), [("v5e:1x1", "tpu"), ("h100:1", "cuda-aot")])
def test_a_missing_compiler_names_the_pip_line(name, extra, monkeypatch):
    monkeypatch.setattr(topology, "find_spec", lambda module: None)
    with pytest.raises(ImportError, match=rf"pip install 'moshi-jax\[{extra}\]'"):
        describe(name)


def test_a_mesh_needs_its_devices():
    pytest.importorskip("libtpu")
    found = describe("v5e:2x4")
    assert found.mesh(data=2, model=4).shape == {"data": 2, "model": 4}
    with pytest.raises(ValueError, match="needs 16 devices, v5e:2x4 has 8"):
        found.mesh(model=16)


def test_every_listed_kind_has_figures():
    for name in NAMES:
        device = topology.DEVICES[name.partition(":")[0]]
        assert 10 * 2**30 < device.memory < 100 * 2**30
        assert 100 < device.bf16 / device.bandwidth < 600  # FLOPs a byte: where the roofline bends
