# For the launchers, which read it in: a run that fails is started again, as it goes on from its last checkpoint.

with_restarts() { # TIMES COMMAND...: the command, up to so many times again
  local times=$1 attempt status
  shift
  for ((attempt = 0; attempt <= times; attempt++)); do
    status=0
    "$@" || status=$?
    case $status in
      0 | 2 | 130) return "$status" ;; # the last step; bad input, or asked to stop: again would be the same
    esac
    echo "attempt $attempt ended with status $status" >&2
  done
  return "$status"
}
