#!/bin/bash
# The nano model from nothing: words, VAE, MammothTok, then every stage from the last one's run.
#
#   scripts/train_nano.sh [FOLDER (runs)]
#
# FOLDER gets nano_words, nano_vae, nano_mammothtok, nano_text, nano_understanding, nano_pre_stage1, nano_layouts,
# nano_pre_stage2, nano_sft, and last nano_model in the released format, bfloat16. After MINUTES (150) the stage under
# way saves and the script ends with status 130; the same command goes on. OVERRIDES are further words for every stage
# of the model itself, as "--run.seed 1". A folder of finished weights at FOLDER/nano_vae or FOLDER/nano_mammothtok is
# taken as it is.
# scripts/ship_nano.py FOLDER then puts the model into the package.
set -euo pipefail

folder=${1:-runs}
deadline=$(($(date +%s) + ${MINUTES:-150} * 60))
scripts=$(dirname "$0")
read -r -a overrides <<<"${OVERRIDES:-}"
# glibc would give a step's memory back to the kernel and fault it in again: 17 % of the processor time of pre_stage1.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=34359738368
mkdir -p "$folder"

training=
trap 'if [[ -n $training ]]; then kill -INT "$training" || true; wait "$training" || true; fi; exit 130' INT TERM

stage() { # NAME WORDS...: trains it, or goes on, as long as there is time
  local left=$((deadline - $(date +%s))) run=$folder/nano_$1 status=0
  if [[ ! -e $run/config.yaml && -n $(ls -A "$run" 2>/dev/null) ]]; then
    echo "$run: finished weights"
    return
  fi
  if ((left <= 0)); then
    echo "stopped before $1; the same command goes on"
    exit 130
  fi
  echo "== $1"
  timeout --signal=INT --preserve-status "$left" mammoth-jax train "nano/$1" --out "$run" "${@:2}" &
  training=$!
  wait "$training" || status=$?
  training=
  if ((status)); then
    exit "$status"
  fi
}

if [[ ! -e $folder/nano_words ]]; then
  python "$scripts/text_tokenizer.py" --preset nano --out "$folder/nano_words" \
    --drawing negative_prompt= num_inference_steps=25 guidance_scale=3 ar_guidance_scale=3 --temperature 0.7
fi
stage vae
stage mammothtok
words=(--frozen.words "$folder/nano_words")
eyes=(--frozen.mammothtok "$folder/nano_mammothtok" --frozen.vae "$folder/nano_vae")
stage text "${words[@]}" "${overrides[@]}"
stage understanding "${words[@]}" --init "$folder/nano_text" "${overrides[@]}"
stage pre_stage1 "${words[@]}" "${eyes[@]}" --init "$folder/nano_understanding" "${overrides[@]}"
stage layouts "${words[@]}" "${eyes[@]}" --init "$folder/nano_pre_stage1" "${overrides[@]}"
stage pre_stage2 "${words[@]}" "${eyes[@]}" --init "$folder/nano_layouts" "${overrides[@]}"
stage sft "${words[@]}" "${eyes[@]}" --init "$folder/nano_pre_stage2" "${overrides[@]}"
if [[ ! -e $folder/nano_model ]]; then
  python -m checkpoint_convert to-torch "$folder/nano_sft" "$folder/nano_model" --dtype bfloat16
fi
