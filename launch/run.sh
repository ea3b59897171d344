#!/usr/bin/env bash
# Starts a training command so that it stops cleanly: mpirun itself kills its ranks two seconds after TERM or INT, but passes
# USR1 on, and temper then writes a checkpoint and exits 75.
#
#   launch/run.sh [--restarts N] [--requeue] COMMAND...
#   launch/run.sh --restarts 3 mpirun -n 2 temper train recipe.toml
#
# TERM and INT become USR1 to COMMAND; a second INT kills it. The exit code is COMMAND's. --restarts N starts it again, at most
# N times, when it failed by itself: not after 0 (done), 2 (wrong input), 75 (stopped on request), nor once a stop was asked for.
# --requeue, in a Slurm job: when USR1 (sbatch --signal=B:USR1@120) has ended COMMAND with 75, the job goes back to the queue; after
# TERM, which scancel sends, it does not.
set -u

restarts=0
requeue=
while [[ "${1:-}" == --restarts || "${1:-}" == --requeue ]]; do
  if [[ "$1" == --requeue ]]; then
    requeue=yes
    shift
    continue
  fi
  if ! [[ "${2:-}" =~ ^[0-9]+$ ]]; then
    echo "launch/run.sh: --restarts takes a number" >&2
    exit 2
  fi
  restarts=$2
  shift 2
done
if [[ -n "$requeue" && -z "${SLURM_JOB_ID:-}" ]]; then
  echo "launch/run.sh: --requeue: this is no Slurm job (SLURM_JOB_ID is not set)" >&2
  exit 2
fi
if [[ $# -eq 0 || "$1" == --help || "$1" == -h ]]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0"
  [[ $# -gt 0 ]] && exit 0 || exit 2
fi

# temper shares out the cores itself; mpirun would bind each rank to one.
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"

# mpirun waits for hosts that say nothing as long as TCP does, a quarter of an hour: here it gives one up, and ends the others, after
# 10 s of silence and 4 questions without an answer, 5 s apart. parallel.timeout should be longer.
export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-10}"
export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-5}"
export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-4}"

child=
stopping=
interrupted=
signalled=
stop() {
  stopping=yes
  signalled=yes
  [[ -n "$child" ]] && kill -USR1 "$child" 2>/dev/null
}
interrupt() {
  requeue=
  if [[ -n "$interrupted" && -n "$child" ]]; then
    kill -KILL -- "-$child" 2>/dev/null
  fi
  interrupted=yes
  stop
}
cancel() {
  requeue=
  stop
}
trap stop USR1
trap cancel TERM
trap interrupt INT

set -m  # a process group of its own: INT from the terminal reaches this script alone
while true; do
  "$@" </dev/null &
  child=$!
  [[ -n "$stopping" ]] && kill -USR1 "$child" 2>/dev/null
  # A signal that a trap handles ends `wait` early, perhaps just as the command itself ends.
  while true; do
    signalled=
    wait "$child"
    code=$?
    [[ -z "$signalled" ]] && break
    kill -0 "$child" 2>/dev/null && continue
    wait "$child" 2>/dev/null
    last=$?
    [[ "$last" -ne 127 ]] && code=$last
    break
  done
  child=
  if [[ "$code" -eq 75 && -n "$requeue" && -n "$stopping" ]]; then
    echo "launch/run.sh: stopped early; job $SLURM_JOB_ID goes back to the queue" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
  case "$code" in 0 | 2 | 75) exit "$code" ;; esac
  if [[ -n "$stopping" || "$restarts" -eq 0 ]]; then
    exit "$code"
  fi
  restarts=$((restarts - 1))
  echo "launch/run.sh: exit code $code; starting again ($restarts restarts left)" >&2
done
