#!/usr/bin/env bash
# The main job, from nothing: sets up, builds, trains a small Llama on two ranks on the C++ headers that the set-up brought,
# completes a line of C++ with it, and says where everything is. Run again, it goes on from what is there.
set -euo pipefail
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || fail "quickstart.sh takes no arguments; the run itself is configs/quickstart.toml"

"$root/launch/setup.sh"
build
cd "$root"
temper=$root/build-release/bin/temper

say "The data: C++ headers of LibTorch"
if [ -e quickstart/data/train.jsonl ] && [ -e quickstart/data/eval.jsonl ]; then
  ls -l quickstart/data/train.jsonl quickstart/data/eval.jsonl
else
  python3 launch/gather_headers.py "$(find_libtorch)/include" quickstart/data
fi

say "mpirun -n 2 temper train configs/quickstart.toml"
launch/run.sh mpirun -n 2 --oversubscribe "$temper" train configs/quickstart.toml

say "temper generate: the model completes a line of C++"
prompt='template <typename T>'
printf '%s' "$prompt"
"$temper" generate runs/quickstart/export --prompt "$prompt" --max-new-tokens 48

say "Done"
echo "model    runs/quickstart/export (transformers, vLLM and others load it)"
echo "report   runs/quickstart/report.html"
echo "metrics  runs/quickstart/metrics.jsonl"
