#!/usr/bin/env bash
# Tests and measures a packed tree on a machine with a GPU, within ten minutes; one table last.
#
#   tar --zstd -xf temper-gpu.tar.zst && temper-gpu/check.sh [OUT [STEP...]]
#
# OUT: a directory for table.txt and all.log (default: temper-gpu-logs here), both complete to the last step that ended. STEP: only
# these, by their names in the table: what ten minutes were not enough for. Needs Python 3 with torch 2.11; compares with
# transformers and peft where they are there. Exit code: 0 everything passed, 1 something failed, 2 there is no such step, 3 there
# is no GPU (or no torch) to check with.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$PWD/temper-gpu-logs}
[ $# = 0 ] || shift
chosen=("$@")
budget=570
start=$SECONDS

nothing_to_do() { echo "check.sh: $1; nothing was tested or measured" >&2; exit 3; }
has_module() { python3 -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' "$@" 2>/dev/null; }
for step in "${chosen[@]}"; do
  grep -qE "^(run|peer|sanitizer) $step " "$0" || { echo "check.sh: there is no step '$step'" >&2; exit 2; }
done
command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU || nothing_to_do "no GPU here (nvidia-smi -L lists none)"
torch=$(python3 -c 'import importlib.util, os; s = importlib.util.find_spec("torch"); print(os.path.dirname(s.origin) if s else "")' 2>/dev/null)
[ -e "$torch/lib/libtorch_cuda.so" ] || nothing_to_do "python3 has no torch with CUDA"
peers_are_here=$(has_module transformers peft && echo yes)
libraries_here=${LD_LIBRARY_PATH:-}
. "$here/env.sh"
mkdir -p "$out"
: >"$out/table.txt"
: >"$out/all.log"
log=$(mktemp)
errors=$(mktemp)
trap 'rm -f "$log" "$errors"' EXIT

failed=0
left() { echo $((budget - (SECONDS - start))); }
row() { printf '%-24s %-8s %s\n' "$1" "$2" "$3" | cut -c1-250 | tee -a "$out/table.txt"; }

asked() { [ ${#chosen[@]} = 0 ] || [[ " ${chosen[*]} " == *" $1 "* ]]; }

# run NAME SECONDS COMMAND...: at most that long (what is asked for by its name: any time), and no longer than what is left of the
# ten minutes.
run() {
  local name=$1 limit=$2 code verdict=ok
  shift 2
  asked "$name" || return 0
  if [ ${#chosen[@]} -gt 0 ] || [ "$limit" -gt "$(left)" ]; then limit=$(left); fi
  if [ "$limit" -lt 10 ]; then
    row "$name" skipped "the ten minutes are over"
    return
  fi
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  code=$?
  printf '\n== %s\n' "$name" | cat - "$log" >>"$out/all.log"
  if [ $code = 124 ] || [ $code = 137 ]; then
    verdict="timeout"
  elif grep -q 'Device not supported' "$log"; then
    verdict="skipped"  # by compute-sanitizer: some virtual machines do not let it look
  elif [ $code != 0 ]; then
    verdict="failed"
  elif grep -q '\[  PASSED  \] 0 tests' "$log"; then
    verdict="failed"  # there is a GPU: what was skipped, or chosen by a name that no test has, is no success
  fi
  if [ $verdict = failed ] || [ $verdict = timeout ]; then
    failed=1
    { printf '\n-- %s\n' "$name"
      grep -E '^\[  FAILED|Failure|[Ee]rror|^(FAIL|ERROR)|Skipped' "$log" | head -n 6
      tail -n 4 "$log"; } | cut -c1-300 >>"$errors"
  fi
  row "$name" $verdict "$(grep -v '^ *$' "$log" | tail -n 1) [$((SECONDS - start)) s]"
  if [ "$name" = kernels ]; then sed 's/^/    /' "$log" | tee -a "$out/table.txt"; fi
}

# The same through transformers and peft, with the libraries that this machine's Python has.
peer() {
  local name=$1 limit=$2
  shift 2
  if [ -n "$peers_are_here" ]; then
    run "$name" "$limit" env LD_LIBRARY_PATH="$libraries_here" python3 "$here/peers.py" "$@"
  elif asked "$name"; then
    row "$name" skipped "no transformers and peft here"
  fi
}

# sanitizer TOOL SECONDS TESTS [OPTION...]: compute-sanitizer, which looks at our own kernels alone. Without LibTorch's cache every
# tensor is an allocation, whose ends the tool knows.
sanitizer() {
  local tool=$1 limit=$2 tests=$3
  shift 3
  if command -v compute-sanitizer >/dev/null; then
    run "$tool" "$limit" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --kernel-name kns=temper --error-exitcode 9 \
      "$@" gpu_test --gtest_filter="$tests"
  elif asked "$tool"; then
    row "$tool" skipped "no compute-sanitizer here"
  fi
}

{
  cat "$here/VERSION"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  python3 -c 'import torch; print("torch", torch.__version__)'
} | tee -a "$out/table.txt"

run doctor 60 temper doctor
run operators 120 gpu_test
run kernels 60 gpu_bench --what kernels

# What goals are set for.
run step_8b 60 gpu_bench --what step --shape 8b --method full --tokens 8192 --optimizer adamw_8bit --checkpointing selective
run step_8b_lora 40 gpu_bench --what step --shape 8b --method lora --tokens 4096
peer peer_8b_lora 60 --shape 8b --method lora --tokens 4096
run step_8b_qlora 40 gpu_bench --what step --shape 8b --method qlora --tokens 2048 --rows 2 --optimizer adamw_8bit --checkpointing full
run step_gpt2_124m 30 gpu_bench --what step --shape 124m --method full --tokens 1024 --rows 32
run generate_1b 40 gpu_bench --what generate --shape 1b --samples 64 --tokens 256 --tokenizer "$here/configs/quickstart"
peer peer_generate_1b 60 --what generate --shape 1b --samples 64 --tokens 256

# (Each rank says that it is a host of its own, else NCCL refuses two on one GPU.)
run two_ranks_one_gpu 60 env NCCL_DEBUG=WARN mpirun -n 2 --oversubscribe gpu_nccl_test
# (Calls that a library makes, sees fail and does without are no errors.)
sanitizer memcheck 60 'Types/*Operators.*:DeviceQuantized.*' --report-api-errors no
sanitizer racecheck 60 '*RmsNorm*:*HeadAndCross*:*AttentionInPages*:*CastsToFloat8Have*:*CutsBetweenEquals*:*StepToTheCpusBits'
run program 200 env TEMPER_PROGRAM="$here/bin/temper" TEMPER_SOURCE_DIR="$here" python3 "$here/tests/gpu/program_test.py"

# Where time is left.
peer peer_gpt2_124m 40 --shape 124m --method full --tokens 1024 --rows 32
run graphs_gpt2_124m 30 gpu_bench --what step --shape 124m --method full --tokens 1024 --rows 32 --graphs yes
run step_8b_float8 40 gpu_bench --what step --shape 8b --method full --tokens 8192 --optimizer adamw_8bit --checkpointing selective --float8 rowwise
run generate_1b_no_graphs 40 env TEMPER_CUDA_GRAPHS=0 gpu_bench --what generate --shape 1b --samples 64 --tokens 256 --tokenizer "$here/configs/quickstart"
run step_8b_qlora_1_row 40 gpu_bench --what step --shape 8b --method qlora --tokens 2048 --optimizer adamw_8bit --checkpointing full
run step_1b 40 gpu_bench --what step --shape 1b --method full --tokens 8192
peer peer_1b 40 --shape 1b --method full --tokens 8192
run generate_8b 40 gpu_bench --what generate --shape 8b --samples 64 --tokens 128 --tokenizer "$here/configs/quickstart"
peer peer_generate_8b 60 --what generate --shape 8b --samples 64 --tokens 128
run step_1b_4096 40 gpu_bench --what step --shape 1b --method full --tokens 4096
run step_8b_4096 60 gpu_bench --what step --shape 8b --method full --tokens 4096 --optimizer adamw_8bit
peer peer_gpt2_124m_compiled 90 --shape 124m --method full --tokens 1024 --rows 32 --compile
peer peer_1b_compiled 90 --shape 1b --method full --tokens 8192 --compile
peer peer_8b_lora_compiled 90 --shape 8b --method lora --tokens 4096 --compile

cat "$errors"
printf '\n== Result, after %d s (all output: %s)\n' $((SECONDS - start)) "$out/all.log"
cat "$out/table.txt"
exit $failed
