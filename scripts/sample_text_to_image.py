"""Text to image from the four pure functions: load on a mesh, jit them, sample.  Copy it and change it.

python scripts/sample_text_to_image.py --prompt "a red circle" --out picture.png
python scripts/sample_text_to_image.py --model DIR --mesh fsdp=4,tensor=2 --prompt "a red circle" --out picture.png
"""

import argparse

import jax
import numpy as np
from PIL import Image

from mammoth_jax.core.mesh import make_mesh, parse_mesh
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.core.shipped import FOLDER
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.schedules import inference_times
from mammoth_jax.flow.solvers import Euler
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.pipelines.batching import PictureRequest, prompt_rows
from mammoth_jax.pipelines.buckets import bucket, token_bucket
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.loading import load_model, random_model
from mammoth_jax.pipelines.options import parse_options
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.sampling.unified import develop, draw_tokens, encode_prompts, paint

parser = argparse.ArgumentParser()
parser.add_argument("--model", default=FOLDER, help="a released-format or converted folder")
parser.add_argument("--preset", help="random weights of this architecture instead")
parser.add_argument("--mesh", default="", help="e.g. data=1,fsdp=4,tensor=2")
parser.add_argument("--prompt", default="a red circle left of a blue square")
parser.add_argument("--num-images", type=int, default=2)
parser.add_argument("--steps", type=int)
parser.add_argument("--out", default="picture.png")
args = parser.parse_args()

# Weights, each array directly in its shards.
mesh, dtype = make_mesh(parse_mesh(args.mesh)), parse_dtype(None)
loaded = (random_model if args.preset else load_model)(args.preset or args.model, dtype=dtype, mesh=mesh)
model, config = loaded.model, loaded.config
options = parse_options({"num_inference_steps": args.steps} if args.steps else {}, loaded.settings.drawing)
pipeline = TextToImagePipeline(loaded)  # only for its plans: what the programs are compiled for

# Requests as arrays of bucketed shapes.
size = picture_size(config, config.picture_size, config.picture_size)
requests = [PictureRequest(args.prompt, seed, size) for seed in range(args.num_images)]
count = bucket(len(requests))
rows = prompt_rows(loaded.tokenizer, requests, negative=options.negative_prompt, guided=True, num_rows=count)
wanted = pipeline.decode_requests(requests, rows, options)

# The four programs.  Weights are arguments: a policy copy or an adapter goes under the same compiled program.
encode = jax.jit(encode_prompts, static_argnames="plan")
draw = jax.jit(draw_tokens, static_argnames=("plan", "conditions", "max_tokens", "guided"))
diffuse = jax.jit(paint, static_argnames=("num_tokens", "solver", "guidance"))
decode = jax.jit(develop, static_argnames=("grid", "patch_size", "tiling"))

with jax.set_mesh(mesh):
    plan, conditions = pipeline.decode_plan, pipeline.condition_plan
    prompts = encode(model.decoder, rows.ids, rows.lengths, plan=plan)
    length = token_bucket(size.tokens[0] * (size.tokens[1] + 1) + 1)
    drawing = draw(
        *(model.decoder, prompts, wanted, rows.answer_start, rows.negative),
        **dict(plan=plan, conditions=conditions, max_tokens=length, guided=True),
    )
    sizes = np.full((count, 2), size.patches, np.int32)
    times = inference_times(options.num_inference_steps, sizes * config.dit.patch_size)
    painted = diffuse(
        *(model.dit, model.refiner, drawing.positive, drawing.negative),
        *(np.arange(count, dtype=np.uint32), sizes, times),  # seeds; an array of noise goes here too
        guided_steps(options.num_inference_steps),
        np.full(count, options.guidance_scale, np.float32),
        **dict(num_tokens=int(np.prod(size.patches)), solver=Euler(), guidance="always"),
    )
    which = np.arange(len(requests), dtype=np.int32)
    whole = dict(grid=size.patches, patch_size=config.dit.patch_size, tiling=Tiling())
    pixels, _ = decode(model.vae, painted.latents, which, **whole)

Image.fromarray(np.concatenate(np.asarray(pixels), axis=1)).save(args.out)
print(f"wrote {args.out}: {len(requests)} pictures side by side")
