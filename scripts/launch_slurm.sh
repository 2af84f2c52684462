#!/bin/bash
# Train on the nodes of a Slurm job, one process a node; a run that lost a node goes on from its last checkpoint.
#
#   sbatch --nodes 4 --gpus-per-node 8 scripts/launch_slurm.sh CONFIG RUN [OPTIONS OF mammoth-jax train]
#
# RUN lies on storage that all nodes see. RESTARTS (10) is how often the job starts again after a failure, VENV a virtual
# environment to activate. Slurm tells each process who the others are (--hosts auto).
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
if [[ -n ${VENV:-} ]]; then
  # shellcheck disable=SC1091
  source "$VENV/bin/activate"
fi

for ((attempt = 0; attempt <= ${RESTARTS:-10}; attempt++)); do
  status=0
  srun --kill-on-bad-exit=1 mammoth-jax train "$config" --out "$run" --hosts auto "$@" || status=$?
  case $status in
    0) exit 0 ;;           # the last step
    2 | 130) exit $status ;; # bad input, or asked to stop: again would be the same
  esac
  echo "attempt $attempt ended with status $status" >&2
done
exit "$status"
