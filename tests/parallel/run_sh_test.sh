#!/usr/bin/env bash
# launch/run.sh with small commands in temper's place. Usage: run_sh_test.sh PATH_OF_RUN_SH
set -u
run=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

expect() { # WHAT EXPECTED FOUND
  if [[ "$2" == "$3" ]]; then
    echo "ok: $1"
  else
    echo "FAILED: $1: expected '$2', found '$3'"
    failures=$((failures + 1))
  fi
}

# Like temper: USR1 ends it with 75 after a moment (the checkpoint).
cat > "$work/trainer" <<'END'
#!/usr/bin/env bash
trap 'sleep 0.2; echo checkpoint >> "$1"; exit 75' USR1
echo started >> "$1"
for _ in $(seq 100); do sleep 0.1; done
END
# Fails as often as its second argument says, with its third as exit code, then is done.
cat > "$work/failing" <<'END'
#!/usr/bin/env bash
echo started >> "$1"
[[ $(wc -l < "$1") -gt $2 ]] || exit "$3"
END
chmod +x "$work/trainer" "$work/failing"

wait_for() { # FILE
  for _ in $(seq 100); do
    [[ -s "$1" ]] && return
    sleep 0.05
  done
}

for signal in TERM INT USR1; do
  # INT is ignored in what a script starts in the background, unless job control is on.
  set -m
  "$run" --restarts 2 "$work/trainer" "$work/$signal" 2> "$work/errors" &
  pid=$!
  set +m
  wait_for "$work/$signal"
  kill -$signal "$pid"
  wait "$pid"
  expect "$signal gives the command's 75" 75 $?
  expect "$signal lets it write its checkpoint, once" "started checkpoint" "$(xargs < "$work/$signal")"
done

"$run" "$work/failing" "$work/once" 1 7
expect "no restarts unless asked for" "7 1" "$? $(wc -l < "$work/once")"
"$run" --restarts 3 "$work/failing" "$work/twice" 2 7 2> "$work/errors"
expect "restarts until it is done" "0 3" "$? $(wc -l < "$work/twice")"
expect "says so each time" 2 "$(wc -l < "$work/errors")"
"$run" --restarts 1 "$work/failing" "$work/often" 9 7 2> "$work/errors"
expect "gives up with the command's code" "7 2" "$? $(wc -l < "$work/often")"
for code in 2 75; do
  "$run" --restarts 3 "$work/failing" "$work/code$code" 9 $code
  expect "$code is not started again" "$code 1" "$? $(wc -l < "$work/code$code")"
done
"$run" --restarts 1 bash -c 'echo started >> "$0"; kill -KILL $$' "$work/killed" 2> "$work/errors"
expect "a killed command is started again" "137 2" "$? $(wc -l < "$work/killed")"
"$run" --restarts x true 2> "$work/errors"
expect "a wrong number is a wrong input" "2 1" "$? $(wc -l < "$work/errors")"
env -u SLURM_JOB_ID "$run" --requeue true 2> "$work/errors"
expect "--requeue outside of a job is a wrong input" "2 1" "$? $(wc -l < "$work/errors")"
"$run" 2> "$work/errors" > "$work/usage"
expect "nothing to run is a wrong input" 2 $?

exit $((failures > 0))
