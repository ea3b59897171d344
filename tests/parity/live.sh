#!/usr/bin/env bash
# Parity against the reference packages themselves: goldens made afresh with another seed, then the whole program.
#
#   tests/parity/live.sh PYTHON BUILD_DIR
set -euo pipefail
python=$(realpath -s "$1")
build=$(realpath "$2")
cd "$(dirname "$0")/../.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

for script in tests/parity/make_*.py; do
  echo "-- $script"
  area=$(basename "$script" .py)
  "$python" "$script" --out "$fresh" --seed "${TEMPER_SEED:-2}"
done
TEMPER_GOLDENS=$fresh ctest --test-dir "$build" -L parity --output-on-failure
"$python" tests/parity/check_tokenizers.py "$build/bin/temper"
"$python" tests/parity/check_old_tokenizers.py "$build/bin/temper"
"$python" tests/parity/check_program.py "$build/bin/temper"
"$python" tests/parity/check_adapters.py "$build/bin/temper"
"$python" tests/parity/check_quantized.py "$build/bin/temper"
"$python" tests/parity/check_preference.py "$build/bin/temper"
"$python" tests/parity/check_grpo.py "$build/bin/temper"
"$python" tests/parity/check_distillation.py "$build/bin/temper"
# What figures of a GPU are held against, in small: it has to run to its last line there.
"$python" tests/gpu/peers.py --method lora --shape tiny --tokens 16 --device cpu
"$python" tests/gpu/peers.py --what generate --shape tiny --samples 2 --tokens 8 --device cpu
