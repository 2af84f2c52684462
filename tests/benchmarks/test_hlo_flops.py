"""Operations of the products in a compiled program."""

import pytest

from mammoth_jax.benchmarks import hlo
from mammoth_jax.benchmarks.hlo_flops import product_flops


def program(line: str, *parameters: str) -> hlo.Program:
    given = [f"  %p{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    return hlo.parse("\n".join(["ENTRY %main (p0: f32[]) -> f32[] {", *given, "  ROOT %out = " + line, "}"]))


@pytest.mark.parametrize(
    "line, shapes, expected",
    [
        (
            "bf16[8,64]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf",
            ["bf16[8,32]", "bf16[32,64]"],
            2 * 8 * 64 * 32,
        ),
        (
            "f32[5,8,64]{2,1,0} dot(%p0, %p1), lhs_batch_dims={0}, lhs_contracting_dims={2}, "
            "rhs_batch_dims={0}, rhs_contracting_dims={1}",
            ["f32[5,8,32]", "f32[5,32,64]"],
            2 * 5 * 8 * 64 * 32,
        ),
        (  # 3x3 over 4x4 with a border: each row of the window meets 3 + 4 + 3 rows of the picture
            "f32[2,4,4,6] convolution(%p0, %p1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
            ["f32[2,4,4,5]", "f32[3,3,5,6]"],
            2 * 2 * 5 * 6 * 10 * 10,
        ),
        (  # stride two, no border
            "f32[1,2,2,6] convolution(%p0, %p1), window={size=2x2 stride=2x2}, dim_labels=b01f_01io->b01f",
            ["f32[1,4,4,5]", "f32[2,2,5,6]"],
            2 * 5 * 6 * 4 * 4,
        ),
        (  # a batch of 8 products as the TPU compiler writes it: 8 pairs meet, not 64
            "bf16[8,7,64]{2,1,0} convolution(%p0, %p1), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
            ["bf16[8,7,32]", "bf16[8,32,64]"],
            8 * 2 * 7 * 64 * 32,
        ),
    ],
)
def test_products_count_two_operations_a_multiplication(line, shapes, expected):
    assert product_flops(program(line, *shapes)) == expected


def test_products_in_loops_and_fusions_count_as_often_as_they_run():
    text = """\
%multiply (a: f32[4,8], b: f32[8,2]) -> f32[4,2] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[8,2]{1,0} parameter(1)
  ROOT %c = f32[4,2]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}

%body (s: (s32[], f32[4,8], f32[8,2])) -> (s32[], f32[4,8], f32[8,2]) {
  %s = (s32[], f32[4,8], f32[8,2]) parameter(0)
  %x = f32[4,8] get-tuple-element(%s), index=1
  %y = f32[8,2] get-tuple-element(%s), index=2
  %z = f32[4,2] fusion(%x, %y), kind=kOutput, calls=%multiply
  ROOT %t = (s32[], f32[4,8], f32[8,2]) tuple(%s, %x, %y)
}

%condition (s.1: (s32[], f32[4,8], f32[8,2])) -> pred[] {
  %s.1 = (s32[], f32[4,8], f32[8,2]) parameter(0)
  ROOT %go = pred[] get-tuple-element(%s.1), index=0
}

ENTRY %main (x.1: f32[4,8]) -> f32[] {
  %x.1 = f32[4,8] parameter(0)
  %w = (s32[], f32[4,8], f32[8,2]) while(%x.1), condition=%condition, body=%body
  ROOT %out = f32[] get-tuple-element(%w), index=0
}
"""
    once = 2 * 4 * 2 * 8
    assert product_flops(hlo.parse(text)) == once
    assert product_flops(hlo.parse(text), steps=50) == 50 * once
