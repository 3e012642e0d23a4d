import pytest

from bench.hlo import Array, arrays, parse

TEXT = """HloModule jit_f, is_scheduled=true

%fused (p.0: bf16[8,4096], p.1: bf16[2,3,128]) -> bf16[8,4096] {
  %p.0 = bf16[8,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %p.1 = bf16[2,3,128]{2,1,0:T(4,128)(2,1)S(1)} parameter(1)
  ROOT %add.1 = bf16[8,4096]{1,0:T(8,128)(2,1)} add(%p.0, %p.0), metadata={op_name="jit(f)/add"}
}

ENTRY %main.1 (x.1: bf16[8,4096], w: bf16[2,3,128]) -> (bf16[8,4096], s32[]) {
  %x.1 = bf16[8,4096]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="state['x']"}
  %w = bf16[2,3,128]{2,1,0:T(4,128)(2,1)} parameter(1)
  %copy-start = (bf16[2]{0:T(1024)S(1)}, bf16[2]{0}, u32[]{:S(2)}) copy-start(%w)
  %copy-done = bf16[2,3,128]{2,1,0:T(4,128)(2,1)S(1)} copy-done(%copy-start)
  %c = s32[]{:T(128)} constant(3)
  %fusion = bf16[8,4096]{1,0:T(8,128)(2,1)} fusion(%x.1, /*index=1*/%copy-done), calls=%fused
  ROOT %t = (bf16[8,4096]{1,0:T(8,128)(2,1)}, s32[]{:T(128)}) tuple(%fusion, %c)
}
"""


def test_a_program_is_read_with_its_calls_sources_and_operands():
    program = parse(TEXT)
    assert program.entry.name == "main.1" and program.entry.root.opcode == "tuple"
    assert [p.source for p in program.entry.parameters] == ["state['x']", "w"]
    fusion = program.entry.instructions["fusion"]
    assert fusion.operands == ("x.1", "copy-done")
    assert fusion.called == {"calls": "fused"}
    fused = program.computations["fused"]
    assert [(user.name, index) for user, index in fused.users["p.0"]] == [
        ("add.1", 0),
        ("add.1", 1),
    ]
    assert fused.root.source == "jit(f)/add"


def test_sizes_have_the_padding_of_tiles_and_spaces_are_told_apart():
    entry = parse(TEXT).entry.instructions
    assert entry["x.1"].shape == Array("bf16", (8, 4096), 8 * 4096 * 2)
    assert entry["w"].shape == Array("bf16", (2, 3, 128), 2 * 4 * 128 * 2)  # 3 rows in a tile of 4
    assert entry["c"].shape == Array("s32", (), 128 * 4)
    target, source, context = arrays(entry["copy-start"].shape)
    assert (target.space, source.space, context.space) == (1, 0, 2)
    assert not target.in_hbm and source.in_hbm


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[2,4096]{1,0}", 2 * 4096 * 4),
        ("pred[3]{0}", 3),
        ("s4[5]{0}", 3),
        ("f8e4m3fn[5]{0}", 5),
        ("token[]", 0),
        ("bf16[1000,8]{0,1:T(8,128)(2,1)}", 8 * 1024 * 2),  # column-major: rows are minor
        ("bf16[4096]{0:T(1024)(128)(2,1)S(1)}", 4096 * 2),
    ],
)
def test_sizes_of_shapes(shape, size):
    entry = parse(f"ENTRY %m () -> x {{\n  ROOT %a = {shape} iota()\n}}\n").entry
    assert [array.size for array in arrays(entry.root.shape)] == [size]


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="without ENTRY"):
        parse("module @jit_f { func.func public @main() }")
