#!/usr/bin/env bash
# Every way to end: exit code, lines on standard error, seconds. Usage: endings_test.sh PROGRAM START..., where START PROGRAM
# makes three ranks of it (mpirun -n 3, without_mpi.sh file 3).
set -u
program=$1
shift
start=("$@")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
failures=0

# ends HOW CODE SECONDS LINE: three ranks end within SECONDS with CODE; all that they say is LINE (a regular expression), once.
ends() {
  local begin=$SECONDS code said
  timeout 60 "${start[@]}" "$program" "$1" 2> "$errors"
  code=$?
  # What temper says, without mpirun's own banner and its notes on ranks that ended.
  said=$(grep -E 'wrong|full|waited|stopped|did not come|is lost' "$errors" | grep -v mpirun)
  if [[ "$code" -eq "$2" && $((SECONDS - begin)) -le "$3" && "$said" =~ ^${4}$ ]]; then
    echo "ok: $1"
  else
    echo "FAILED: $1: exit code $code after $((SECONDS - begin)) s, expected $2 within $3 s; said '$said', expected '$4'"
    cat "$errors"
    failures=$((failures + 1))
  fi
}

ends "all is well" 0 10 ""
ends "stopped" 75 10 ""
ends "same error everywhere" 2 10 "recipe.toml:3: wrong"
ends "error while others exchange texts" 2 10 "rank 1 on [^ ]*: row 7: wrong"
ends "error while others are in a collective" 2 10 "rank 1 on [^ ]*: row 9: wrong"
ends "error after an exchange has started" 1 10 "rank 0 on [^ ]*: disk full"
ends "a killed rank" 137 20 ""
late="rank [12] on [^ ]*: all_reduce 1 in group 'world' waited 1 s [(]parallel.timeout[)]; no answer from rank 0 on [^ ]*: lost, stuck or doing something else"
ends "a rank that never comes" 1 20 "($late"$'\n'")?$late"

late="rank [12] on [^ ]*: broadcast 1 in group 'start-up' waited 1 s [(]parallel.timeout[)]; no answer from rank 0 on [^ ]*: lost, stuck or doing something else"
ends "a rank that never comes to exchange texts" 1 20 "($late"$'\n'")?$late"
late="rank [01] on [^ ]*: meeting 1 in group 'start-up' waited 1 s [(]parallel.timeout[)]; no answer from rank 2 on [^ ]*: lost, stuck or doing something else"
ends "a rank that never comes to meet" 1 20 "($late"$'\n'")?$late"

if [[ "${start[0]}" != *without_mpi.sh ]]; then
  late="[^ ]*: the start of MPI waited 1 s [(]parallel.timeout[)]: [^"$'\n'"]*"
  ends "a rank that never starts" 1 20 "($late"$'\n'")?$late"
else
  late="(rank 2 on [^ ]*: )?parallel.rendezvous = \"[^ ]*\": (rank 1 of 3 did not come within 1 s [(]parallel.timeout[)]|rank 0 is lost: [^ ]* does not answer)"
  ends "a rank that never starts" 2 20 "($late"$'\n'")?$late"
fi
late="rank [02] on [^ ]*: the end of the run has waited: no answer from rank 1 on [^ ]*: busy, stuck or lost"
ends "a rank that comes to the end late" 0 20 "($late"$'\n'")*$late"

exit $((failures > 0))
