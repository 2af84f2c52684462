"""Our attention kernels by the real TPU compiler, ahead of time and without a TPU; needs the extra ``tpu``."""

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
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.attention import attention

topology, implementation, sizes, shapes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
count = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
mesh = make_mesh(sizes, devices[:count])

def spec(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

def program(query, key, value, segments, toward):
    def attend(query, key, value):
        return attention(
            query, key, value, query_segments=segments, key_segments=segments, causal=True,
            implementation=implementation or None,
        )
    out, pull = jax.vjp(attend, query, key, value)
    return out, pull(toward)

for b, s, h, k, e in shapes:
    queries, keys = spec(b, s, h, e), spec(b, s, k, e)
    with jax.set_mesh(mesh):
        compiled = jax.jit(program).lower(queries, keys, keys, spec(b, s, dtype=jnp.int32), queries).compile()
    memory = compiled.memory_analysis()
    print(json.dumps({
        "shape": [b, s, h, k, e],
        "temporaries": memory.temp_size_in_bytes,
        "peak": memory.peak_memory_in_bytes,
        "kernels": compiled.as_text().count('custom_call_target="tpu_custom_call"'),
    }), flush=True)
"""

ONE = {"data": 1, "fsdp": 1, "tensor": 1}


def compile_for(topology, implementation, shapes, sizes=ONE):
    """Bytes and kernels of the compiled forward and backward pass for each shape ``[b, s, h, k, e]``."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    words = [topology, implementation, json.dumps(sizes), json.dumps(shapes)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, env=environment
    )
    assert "libtpu" not in done.stderr or done.returncode == 0, (
        "needs libtpu: install the extra 'tpu'\n" + done.stderr[-2000:]
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_kernels_compile_for_every_head_size(topology):
    found = compile_for(topology, "", [[1, 4096, 32, 8, e] for e in (64, 72, 80, 120, 128)])
    assert [each["kernels"] for each in found] == [
        3
    ] * 5  # forward, queries' gradient, keys' and values' gradients


@pytest.mark.parametrize("implementation", ["pallas_tpu", "chunked"])
def test_temporaries_grow_linearly(implementation):
    short, long = compile_for("v5p:2x2x1", implementation, [[1, n, 32, 8, 128] for n in (16384, 32768)])
    assert long["temporaries"] <= 2.1 * short["temporaries"]


def test_kernels_compile_over_a_mesh_whose_heads_do_not_divide():
    sizes = {"data": 1, "fsdp": 2, "tensor": 2}
    found = compile_for("v5e:2x2", "", [[2, 4096, 21, 7, 120]], sizes)
    assert found[0]["kernels"] == 3
