#!/bin/bash
# Train on TPU slices of a GKE cluster through XPK (github.com/AI-Hypercomputer/xpk), one process a host.
#
#   CLUSTER=mine TPU=v5p-256 IMAGE=REGISTRY/mammoth-jax scripts/launch_xpk.sh NAME CONFIG RUN [OPTIONS OF mammoth-jax train]
#
# NAME is the workload's. IMAGE has the package with its extra 'tpu'; RUN lies on storage that it mounts (a bucket by Cloud
# Storage FUSE, or Filestore). SLICES (1) and RESTARTS (10) as they say. GKE tells each process who the others are
# (--hosts auto). A lost host ends the others; GKE starts all again, and they go on from the last checkpoint.
set -euo pipefail

if (($# < 3)) || [[ -z ${CLUSTER:-} || -z ${TPU:-} || -z ${IMAGE:-} ]]; then
  echo "usage: CLUSTER=... TPU=v5p-256 IMAGE=... $0 NAME CONFIG RUN [OPTIONS OF mammoth-jax train]" >&2
  exit 2
fi
name=$1 config=$2 run=$3
shift 3
printf -v command '%q ' mammoth-jax train "$config" --out "$run" --hosts auto "$@"

${XPK:-xpk} workload create \
  --cluster "$CLUSTER" --workload "$name" \
  --tpu-type "$TPU" --num-slices "${SLICES:-1}" \
  --docker-image "$IMAGE" \
  --max-restarts "${RESTARTS:-10}" \
  --command "$command"
