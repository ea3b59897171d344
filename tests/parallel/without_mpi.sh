#!/usr/bin/env bash
# Starts ranks of a program that meet without MPI and ends as mpirun does: with 0, or the first exit code that is not, and then
# no rank stays. Usage: without_mpi.sh file|tcp RANKS PROGRAM [ARGUMENT...]
set -u
how=$1
ranks=$2
shift 2
folder=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2> /dev/null; rm -rf "$folder"' EXIT
case $how in
  file) export TEMPER_TEST_RENDEZVOUS=file://$folder/ranks ;;
  tcp)
    port=29500
    while (: < "/dev/tcp/localhost/$port") 2> /dev/null; do port=$((20000 + RANDOM % 10000)); done
    export TEMPER_TEST_RENDEZVOUS=tcp://localhost:$port
    ;;
esac
for ((rank = 0; rank < ranks; ++rank)); do
  RANK=$rank WORLD_SIZE=$ranks "$@" &
done
for ((ended = 0; ended < ranks; ++ended)); do
  wait -n
  code=$?
  if ((code != 0)); then
    sleep 2  # the others say what they have to
    exit $code
  fi
done
