#!/usr/bin/env bash
# Tests and measures a packed tree on a machine with a GPU, within ten minutes; one table last.
#
#   tar --zstd -xf temper-gpu.tar.zst && temper-gpu/check.sh [OUT]
#
# OUT: a directory for the logs (default: temper-gpu-logs here). Needs Python 3 with torch 2.11; compares with transformers and
# peft where they are there. Exit code: 0 everything passed, 1 something failed, 3 there is no GPU (or no torch) to check with.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$PWD/temper-gpu-logs}
budget=570
start=$SECONDS

nothing_to_do() { echo "check.sh: $1; nothing was tested or measured" >&2; exit 3; }
command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU || nothing_to_do "no GPU here (nvidia-smi -L lists none)"
torch=$(python3 -c 'import importlib.util, os; s = importlib.util.find_spec("torch"); print(os.path.dirname(s.origin) if s else "")' 2>/dev/null)
[ -e "$torch/lib/libtorch_cuda.so" ] || nothing_to_do "python3 has no torch with CUDA"
. "$here/env.sh"
mkdir -p "$out"

table=()
failed=0
left() { echo $((budget - (SECONDS - start))); }
# run NAME SECONDS COMMAND...: at most that long, and no longer than what is left of the ten minutes.
run() {
  local name=$1 limit=$2 log=$out/$1.log code
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    table+=("$(printf '%-24s %-8s %s' "$name" "skipped" "the ten minutes are over")")
    return
  fi
  printf '\n== %s\n' "$name"
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  code=$?
  tail -n 25 "$log"
  local verdict=ok last
  if [ $code = 124 ] || [ $code = 137 ]; then
    verdict="timeout"
  elif [ $code != 0 ]; then
    verdict="failed"
  fi
  # What is skipped says so; a test that tested nothing is no success.
  if [ "$verdict" = ok ] && grep -q '\[  SKIPPED \]' "$log" && ! grep -q '\[       OK \]' "$log"; then verdict="skipped"; fi
  [ "$verdict" = ok ] || [ "$verdict" = skipped ] || failed=1
  last=$(grep -v '^ *$' "$log" | tail -n 1 | cut -c1-150)
  table+=("$(printf '%-24s %-8s %s' "$name" "$verdict" "$last")")
}

{
  cat "$here/VERSION"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  python3 -c 'import torch; print("torch", torch.__version__)'
} | tee "$out/versions.log"

run doctor 60 temper doctor
run operators 120 gpu_test
run program 150 env TEMPER_PROGRAM="$here/bin/temper" TEMPER_SOURCE_DIR="$here" python3 "$here/tests/gpu/program_test.py"
# (Each rank says that it is a host of its own, else NCCL refuses two on one GPU.)
run two_ranks_one_gpu 60 mpirun -n 2 --oversubscribe gpu_nccl_test
if command -v compute-sanitizer >/dev/null; then
  run memcheck 90 compute-sanitizer --tool memcheck --error-exitcode 9 gpu_test --gtest_filter='Types/*Operators.*:DeviceQuantized.*'
  run racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 gpu_test --gtest_filter='*RmsNorm*:*HeadAndCross*'
else
  table+=("$(printf '%-24s %-8s %s' memcheck skipped 'no compute-sanitizer here')")
fi

run kernels 40 gpu_bench --what kernels
run step_1b 40 gpu_bench --what step --shape 1b --method full --tokens 8192
run step_8b_lora 40 gpu_bench --what step --shape 8b --method lora --tokens 4096
run peer_8b_lora 60 python3 "$here/peers.py" --shape 8b --method lora --tokens 4096
run step_8b_qlora 40 gpu_bench --what step --shape 8b --method qlora --tokens 2048 --rows 2
run step_8b 60 gpu_bench --what step --shape 8b --method full --tokens 8192 --optimizer adamw_8bit --checkpointing selective
run peer_1b 40 python3 "$here/peers.py" --shape 1b --method full --tokens 8192
run step_gpt2_124m 30 gpu_bench --what step --shape 124m --method full --tokens 1024 --rows 32
run graphs_gpt2_124m 30 gpu_bench --what step --shape 124m --method full --tokens 1024 --rows 32 --graphs yes
run peer_gpt2_124m 30 python3 "$here/peers.py" --shape 124m --method full --tokens 1024 --rows 32 --compile
run generate_1b 30 gpu_bench --what generate --shape 1b --samples 64 --tokens 256 --tokenizer "$here/configs/quickstart"
run generate_1b_no_graphs 30 env TEMPER_CUDA_GRAPHS=0 gpu_bench --what generate --shape 1b --samples 64 --tokens 256 --tokenizer "$here/configs/quickstart"
run peer_generate_1b 40 python3 "$here/peers.py" --what generate --shape 1b --samples 64 --tokens 256
run generate_8b 30 gpu_bench --what generate --shape 8b --samples 64 --tokens 128 --tokenizer "$here/configs/quickstart"
run peer_generate_8b 40 python3 "$here/peers.py" --what generate --shape 8b --samples 64 --tokens 128
run step_8b_float8 40 gpu_bench --what step --shape 8b --method full --tokens 8192 --optimizer adamw_8bit --checkpointing selective --float8 rowwise
# Where time is left.
run step_1b_4096 40 gpu_bench --what step --shape 1b --method full --tokens 4096
run step_8b_4096 60 gpu_bench --what step --shape 8b --method full --tokens 4096 --optimizer adamw_8bit
run peer_1b_compiled 60 python3 "$here/peers.py" --shape 1b --method full --tokens 8192 --compile
run peer_8b_lora_compiled 60 python3 "$here/peers.py" --shape 8b --method lora --tokens 4096 --compile

printf '\n== Result, after %d s\n' $((SECONDS - start))
printf '%s\n' "${table[@]}" | tee "$out/table.txt"
exit $failed
