#!/bin/bash
# Train on hosts that are reached by ssh, one process each; the names may repeat, and "localhost" needs no ssh.
#
#   HOSTS="node0 node1" scripts/launch_hosts.sh CONFIG RUN [OPTIONS OF mammoth-jax train]
#   HOSTS="localhost localhost" JAX_PLATFORMS=cpu scripts/launch_hosts.sh nano/text runs/text
#
# The first host is where the others meet, at PORT (7777), by the name that is given here. Every host has this folder at the
# same place (and VENV, if given, to activate there), and RUN lies on storage that all see. The first process writes here,
# the others to RUN.host1.log and so on. When one fails the others are stopped; RESTARTS (0) is how often all start again,
# from the last checkpoint.
set -euo pipefail

read -r -a hosts <<<"${HOSTS:-}"
if (($# < 2)) || ((${#hosts[@]} == 0)); then
  echo "usage: HOSTS='node0 node1' $0 CONFIG RUN [OPTIONS OF mammoth-jax train]" >&2
  exit 2
fi
config=$1 run=$2
shift 2
source "$(dirname "$0")/restarts.sh"
mkdir -p "$(dirname "$run")"

start() { # NUMBER: the process on its host
  local host=${hosts[$1]} who="${hosts[0]}:${PORT:-7777},${#hosts[@]},$1" words
  printf -v words '%q ' mammoth-jax train "$config" --out "$run" --hosts "$who" "${@:2}"
  words="${VENV:+source $(printf %q "$VENV")/bin/activate; }exec $words"
  if [[ -n ${JAX_PLATFORMS:-} ]]; then
    words="export JAX_PLATFORMS=$JAX_PLATFORMS; $words"
  fi
  if [[ $host == localhost ]]; then
    exec bash -c "$words"
  fi
  exec ssh -tt -o BatchMode=yes "$host" "cd $(printf %q "$PWD") && $words" </dev/null
}

processes=()
stop() {
  for process in "${processes[@]}"; do
    kill -TERM "$process" 2>/dev/null || true
  done
}
trap 'stop; wait; exit 130' INT TERM

all_hosts() {
  local number code=0
  processes=()
  for number in "${!hosts[@]}"; do
    if ((number == 0)); then
      (start 0 "$@") &
    else
      (start "$number" "$@") >>"$run.host$number.log" 2>&1 &
    fi
    processes+=($!)
  done
  for _ in "${processes[@]}"; do
    wait -n || code=$?
    if ((code)); then
      stop
      wait || true
      echo "a host failed; see also $run.host*.log" >&2
      return "$code"
    fi
  done
}

with_restarts "${RESTARTS:-0}" all_hosts "$@"
