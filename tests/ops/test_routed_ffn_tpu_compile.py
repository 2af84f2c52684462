"""Our grouped product by the real TPU compiler, ahead of time and without a TPU; needs the extra ``tpu``."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# A process of its own: the TPU compiler reads its settings when JAX starts.
PROGRAM = """
import json, sys
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from mammoth_jax.benchmarks import hlo
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.routed_ffn import ExpertKernels, routed_ffn, use_routed_ffn

topology, name, sizes, shapes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
count = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
mesh = make_mesh(sizes, devices[:count])

def spec(*shape, dtype, axes=()):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

def program(x, stacks, expert):
    def layer(x, number):
        here = [ExpertKernels(*stack, number) for stack in stacks]
        with use_routed_ffn(name):
            return x + routed_ffn(x, here, expert), None
    return jax.lax.scan(layer, x, jnp.arange(stacks[0][0].shape[0]))[0]

for layers, tokens, d, f, experts, dtype in shapes:
    wide = spec(layers, d, f, dtype=dtype, axes=(None, "fsdp", "tensor"))
    tall = spec(layers, f, d, dtype=dtype, axes=(None, "tensor", "fsdp"))
    stacks = [(wide, wide, tall)] * experts
    with jax.set_mesh(mesh):
        lowered = jax.jit(program).lower(
            spec(1, tokens, d, dtype=dtype), stacks, spec(1, tokens, dtype=jnp.int32)
        )
        text = hlo.parse(lowered.compile().as_text())
    kernel = d * f // count * jnp.dtype(dtype).itemsize
    print(json.dumps({"kernels": hlo.custom_calls(text), "copies": len(hlo.large_copies(text, kernel))}), flush=True)
"""

ONE = {"data": 1, "fsdp": 1, "tensor": 1}


def compile_for(topology, name, shapes, sizes=ONE):
    """Kernels, and copies of a weight or more in the scan, for each (layers, tokens, d, f, experts, dtype)."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    words = [topology, name, json.dumps(sizes), json.dumps(shapes)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, "needs libtpu, of the extra 'tpu'\n" + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_kernel_compiles_and_copies_no_weights(topology):
    shapes = [
        (4, 1024, 4096, 6144, 2, "bfloat16"),
        (3, 600, 3584, 4736, 2, "bfloat16"),  # a rest of every block
        (3, 600, 1160, 1300, 2, "float32"),
        (3, 600, 2048, 3072, 3, "bfloat16"),
    ]
    assert compile_for(topology, "pallas_tpu", shapes) == [{"kernels": 3, "copies": 0}] * len(shapes)


def test_kernels_over_a_mesh_copy_no_weights_and_slices_of_stacks_are_copies():
    sizes = ONE | {"tensor": 2}
    shapes = [(4, 1024, 4096, 12288, 2, "bfloat16")]  # `dev`
    assert compile_for("v5e:2x2", "pallas_tpu", shapes, sizes) == [{"kernels": 3, "copies": 0}]
    (sliced,) = compile_for("v5e:2x2", "megablox", shapes, sizes)
    assert sliced["copies"] > 0
