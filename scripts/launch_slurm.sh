#!/bin/bash
# Train on the nodes of a Slurm job, one process a node; a run that lost a node goes on from its last checkpoint.
#
#   sbatch --nodes 4 --gpus-per-node 8 scripts/launch_slurm.sh CONFIG RUN [OPTIONS OF mammoth-jax train]
#
# To be submitted from the folder that has scripts/. RUN lies on storage that all nodes see. RESTARTS (10) is how often the
# job starts again after a failure, VENV a virtual environment to activate. Slurm tells each process who the others are
# (--hosts auto).
#SBATCH --job-name=mammoth-jax
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
set -euo pipefail

if (($# < 2)); then
  echo "usage: sbatch --nodes N $0 CONFIG RUN [OPTIONS OF mammoth-jax train]" >&2
  exit 2
fi
config=$1 run=$2
shift 2
source "${SLURM_SUBMIT_DIR:-.}/scripts/restarts.sh" # Slurm runs a copy of this file, from elsewhere
if [[ -n ${VENV:-} ]]; then
  # shellcheck disable=SC1091
  source "$VENV/bin/activate"
fi

with_restarts "${RESTARTS:-10}" \
  srun --kill-on-bad-exit=1 mammoth-jax train "$config" --out "$run" --hosts auto "$@"
