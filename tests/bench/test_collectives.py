"""Collectives as the compiler writes them: chains of fusions, or a slice of a sum."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from bench.collectives import collectives_of
from bench.hlo import parse
from bench.topology import describe
from bench.traffic import count

KB = 1024
# A gather of [64, 128] f32 (32 KiB) from four of eight devices that goes on beside a product and
# ends; a sum of which each keeps a quarter; a plain sum over all eight.
CHAIN = """\
HloModule m, is_scheduled=true, num_partitions=8

%start (p: f32[16,128]) -> (f32[16,128], f32[64,128]) {
  %p = f32[16,128]{1,0} parameter(0)
  %gather.0 = f32[64,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, \
backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %c = (f32[16,128]{1,0}, f32[64,128]{1,0}) custom-call(%gather.0), \
custom_call_target="AsyncCollectiveStart"
}

%beside (a: f32[8,8], p.1: f32[16,128], q: f32[64,128]) -> (f32[8,8], f32[16,128], f32[64,128]) {
  %a = f32[8,8]{1,0} parameter(0)
  %p.1 = f32[16,128]{1,0} parameter(1)
  %q = f32[64,128]{1,0} parameter(2)
  %gather.1 = f32[64,128]{1,0} all-gather(%p.1), replica_groups={{0,1,2,3},{4,5,6,7}}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  %twice = f32[8,8]{1,0} add(%a, %a)
  ROOT %t = (f32[8,8]{1,0}, f32[16,128]{1,0}, f32[64,128]{1,0}) tuple(%twice, %p.1, %gather.1)
}

%done (p.2: f32[16,128], q.2: f32[64,128]) -> f32[64,128] {
  %p.2 = f32[16,128]{1,0} parameter(0)
  %q.2 = f32[64,128]{1,0} parameter(1)
  %gather.2 = f32[64,128]{1,0} all-gather(%p.2), replica_groups={{0,1,2,3},{4,5,6,7}}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %d = f32[64,128]{1,0} custom-call(%p.2, %q.2, %gather.2), \
custom_call_target="AsyncCollectiveDone"
}

%scatter (s: f32[64,128]) -> f32[16,128] {
  %s = f32[64,128]{1,0} parameter(0)
  %sum = f32[64,128]{1,0} all-reduce(%s), replica_groups=[2,4]<=[8], to_apply=%add
  %bits = f32[64,128]{1,0} bitcast(%sum)
  %zero = s32[] constant(0)
  ROOT %part = f32[16,128]{1,0} dynamic-slice(%bits, %zero, %zero), dynamic_slice_sizes={16,128}
}

ENTRY %main (x: f32[16,128], y: f32[8,8]) -> f32[64,128] {
  %x = f32[16,128]{1,0} parameter(0)
  %y = f32[8,8]{1,0} parameter(1)
  %f0 = (f32[16,128]{1,0}, f32[64,128]{1,0}) fusion(%x), kind=kCustom, \
output_to_operand_aliasing={{0}: (0, {})}, calls=%start
  %g0 = f32[16,128]{1,0} get-tuple-element(%f0), index=0
  %g1 = f32[64,128]{1,0} get-tuple-element(%f0), index=1
  %f1 = (f32[8,8]{1,0}, f32[16,128]{1,0}, f32[64,128]{1,0}) fusion(%y, %g0, %g1), kind=kOutput, \
output_to_operand_aliasing={{1}: (1, {}), {2}: (2, {})}, calls=%beside
  %h0 = f32[16,128]{1,0} get-tuple-element(%f1), index=1
  %h1 = f32[64,128]{1,0} get-tuple-element(%f1), index=2
  %f2 = f32[64,128]{1,0} fusion(%h0, %h1), kind=kCustom, \
output_to_operand_aliasing={{}: (1, {})}, calls=%done
  %f3 = f32[16,128]{1,0} fusion(%f2), kind=kCustom, calls=%scatter
  %all = f32[16,128]{1,0} all-reduce(%f3), replica_groups={}, to_apply=%add
  ROOT %r = f32[64,128]{1,0} copy(%f2)
}
"""


def test_a_chain_of_fusions_is_one_collective_and_moves_its_buffers_once():
    traffic = count(CHAIN)
    assert traffic.collectives() == {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 1}
    by_name = {o.name: o for o in traffic.operations}
    assert by_name["f0"].moved == (8 + 32) * KB  # the block is read, the whole is written
    assert by_name["f1"].moved == 2 * 256  # its own work alone
    assert by_name["f2"].moved == 0


def test_what_a_device_sends_depends_on_kind_and_group():
    program = parse(CHAIN)
    found = {
        c.kind: c
        for i in program.entry.instructions.values()
        for c in collectives_of(program, program.entry, i)
    }
    assert found["all-gather"].payload == 32 * KB and found["all-gather"].sent == 24 * KB
    assert found["reduce-scatter"].payload == 32 * KB and found["reduce-scatter"].sent == 24 * KB
    # Round a ring twice: to sum, and to tell; all eight devices.
    assert found["all-reduce"].payload == 8 * KB and found["all-reduce"].sent == 14 * KB


@pytest.mark.parametrize("axes", [("a",), ("a", "b")])
def test_sums_scattered_axis_by_axis_are_no_sums_of_everything(axes):
    """On a torus of 2 x 4; a dot in front, so that the compiler may fuse as it does in training."""
    pytest.importorskip("libtpu")
    topology = describe("v5e:2x4")
    mesh = topology.mesh(a=2, b=4)

    def program(x, w):
        whole = x @ w
        for axis in axes:
            whole = jax.lax.psum_scatter(whole, axis, scatter_dimension=0, tiled=True)
        return whole

    mapped = jax.shard_map(
        program,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec()),
        out_specs=PartitionSpec(axes),
        check_vma=False,
    )
    shapes = [jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)] * 2
    traffic = count(topology.compile(jax.jit(mapped).lower(*shapes)).as_text())
    found = traffic.collectives()
    assert found["reduce-scatter"] == len(axes) and "all-reduce" not in found
    size = 4096 * 4096 * 2  # half of it is sent on axis a, then 3/4 of that half on axis b
    expected = size / 2 if axes == ("a",) else size * 7 / 8
    assert traffic.sent() == pytest.approx(expected, rel=0.1)  # the compiler pads the shares
