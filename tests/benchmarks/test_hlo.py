"""Reading compiled programs: loops, collectives, custom calls, copies."""

import pytest

from mammoth_jax.benchmarks import hlo

PROGRAM = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(bf16[8,4]{1,0})->bf16[8,4]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%layer_body (carry: (s32[], bf16[4096,4096])) -> (s32[], bf16[4096,4096]) {
  %carry = (s32[]{:T(128)}, bf16[4096,4096]{1,0:T(8,128)(2,1)}) parameter(0)
  %counter = s32[] get-tuple-element(%carry), index=0
  %w = bf16[4096,4096]{1,0:T(8,128)(2,1)} get-tuple-element(%carry), index=1
  %relaid = bf16[4096,4096]{0,1:T(8,128)(2,1)} copy(%w), metadata={op_name="jit(f)/while/body/dot_general"}
  %fetched = (bf16[4096,4096]{1,0:T(8,128)(2,1)S(1)}, bf16[4096,4096]{1,0}, u32[]{:S(2)}) copy-start(%w)
  %small = bf16[128,128]{0,1} copy(%w)
  %reduced = f32[16,32]{1,0} all-reduce(%w), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %next = (s32[], bf16[4096,4096]) tuple(%counter, %w)
}

%layer_condition (carry.1: (s32[], bf16[4096,4096])) -> pred[] {
  %carry.1 = (s32[], bf16[4096,4096]) parameter(0)
  %limit = s32[]{:T(128)} constant(36)
  %counter.1 = s32[] get-tuple-element(%carry.1), index=0
  ROOT %less = pred[] compare(%counter.1, %limit), direction=LT
}

%gather_fusion (p: bf16[8,4]) -> bf16[16,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %gathered = bf16[16,4]{1,0} all-gather(%p), channel_id=5, replica_groups={{0,1},{2,3}}, dimensions={0}
}

%step_body (state: (s32[], bf16[4096,4096])) -> (s32[], bf16[4096,4096]) {
  %state = (s32[], bf16[4096,4096]) parameter(0)
  %kernel = bf16[8,4]{1,0} custom-call(%state), custom_call_target="tpu_custom_call", metadata={op_name="pallas"}
  %other = s32[8]{0} custom-call(%state), custom_call_target="AssumeGatherIndicesInBound"
  %begun = bf16[16,4]{1,0} fusion(%kernel), kind=kCustom, calls=%gather_fusion
  %ended = bf16[16,4]{1,0} fusion(%kernel), kind=kCustom, calls=%gather_fusion
  ROOT %layers = (s32[], bf16[4096,4096]) while(%state), condition=%layer_condition, body=%layer_body
}

%step_condition (state.1: (s32[], bf16[4096,4096])) -> pred[] {
  %state.1 = (s32[], bf16[4096,4096]) parameter(0)
  %active = pred[] get-tuple-element(%state.1), index=0
  %below = pred[] get-tuple-element(%state.1), index=1
  ROOT %go = pred[] and(%active, %below)
}

ENTRY %main (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %big = bf16[4096,4096]{0,1} copy(%x)
  %moved = (bf16[8,4]{1,0}, bf16[8,4]{1,0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  %done = bf16[8,4]{1,0} collective-permute-done(%moved)
  %loop = (s32[], bf16[4096,4096], /*index=2*/s32[]) while(%big), condition=%step_condition, body=%step_body
  ROOT %out = bf16[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture
def program():
    return hlo.parse(PROGRAM)


def test_counted_loop_is_read_from_its_condition(program):
    assert hlo.loop_trips(program, "layer_condition") == 36
    assert hlo.loop_trips(program, "step_condition") is None


def test_condition_may_be_a_fusion():
    text = PROGRAM.replace(
        "ROOT %less = pred[] compare(%counter.1, %limit), direction=LT",
        "ROOT %less = pred[] fusion(%counter.1, %limit), kind=kLoop, calls=%below",
    ).replace(
        "ENTRY %main",
        """%below (i: s32[], n: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %n = s32[] parameter(1)
  ROOT %is = pred[] compare(%i, %n), direction=LT
}

ENTRY %main""",
    )
    assert hlo.loop_trips(hlo.parse(text), "layer_condition") == 36


def test_collectives_count_as_often_as_their_loops_run(program):
    found = hlo.collectives(program, steps=10)
    assert found["all-reduce"].count == 10 * 36
    assert found["all-reduce"].bytes == 10 * 36 * 16 * 32 * 4
    assert found["all-reduce"].received == 10 * 36 * 2 * 16 * 32 * 4 * 3 // 4  # groups of four
    assert found["collective-permute"] == hlo.Traffic(1, 64, 64)


def test_split_collective_counts_once(program):
    assert hlo.collectives(program, steps=10)["all-gather"] == hlo.Traffic(10, 10 * 128, 10 * 64)


def test_loop_that_ends_by_its_data_counts_once_unless_told(program):
    assert hlo.collectives(program)["all-reduce"].count == 36


@pytest.mark.parametrize("order", ["", ", device_ids=([2,8]T(1,0))"])
def test_groups_may_be_axes_of_a_mesh(order):
    text = PROGRAM.replace("replica_groups=[2,4]<=[8]", f"replica_groups=mesh['a'=2,'b'=8]{order} {{'b'}}")
    size = 36 * 16 * 32 * 4
    assert hlo.collectives(hlo.parse(text))["all-reduce"].received == 2 * size * 7 // 8


def test_only_kernels_count_as_custom_calls(program):
    assert hlo.custom_calls(program) == 1


def test_large_copies_inside_loops_are_listed(program):
    """Not the one outside, not the small one, and not what is fetched into the core's own memory."""
    (copy,) = hlo.large_copies(program, steps=10)
    assert (copy.name, copy.bytes, copy.times) == ("relaid", 32 * 2**20, 360)
    assert copy.source.endswith("dot_general")


def test_bytes_of_shapes():
    assert hlo.array_bytes("(f32[2,3]{1,0}, /*index=1*/s8[5], pred[], bf16[<=4,2])") == 24 + 5 + 1 + 16
    assert hlo.array_bytes("s4[8]") == 4
    assert hlo.array_bytes("f8e4m3fn[16]{0}") == 16


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("HloModule empty")
