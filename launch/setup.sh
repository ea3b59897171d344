#!/usr/bin/env bash
# Installs what is missing to build and run Temper on Debian 12: packages from apt, a private LibTorch and Arrow from PyPI
# (under ~/.cache/temper, or $TEMPER_PACKAGES). Run again, it finds everything in place and does nothing.
#
#   launch/setup.sh            what building, running and testing need
#   launch/setup.sh --peers    also the Python environment of the reference packages (several GB), for the live parity tests
set -euo pipefail
. "$(dirname "$0")/common.sh"

peers=no
for argument in "$@"; do
  case $argument in
    --peers) peers=yes ;;
    *) fail "setup.sh: unknown argument '$argument' (allowed: --peers)" ;;
  esac
done

debian_packages=(
  g++ cmake ninja-build ccache mold git pkg-config ca-certificates python3 python3-pip
  openmpi-bin libopenmpi-dev libhdf5-dev libtomlplusplus-dev libboost-program-options-dev
  libpcre2-dev libsimdjson-dev nlohmann-json3-dev libcurl4-openssl-dev libssl-dev zlib1g-dev libzstd-dev libxxhash-dev libgtest-dev
)
[ "$peers" = no ] || debian_packages+=(python3-venv python3-dev)

say "Debian packages"
missing=()
for package in "${debian_packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then
  echo "all ${#debian_packages[@]} are installed"
else
  command="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    sudo=""
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo"
  else
    fail "these packages are missing and this user may not install them; run:
  sudo $command"
  fi
  echo "installing: ${missing[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive $command >/dev/null
fi

# pip_target DIRECTORY REQUIREMENT...: a directory of PyPI packages, complete or absent.
pip_target() {
  local directory=$1
  shift
  mkdir -p "$packages"
  rm -rf "$directory.partial"
  python3 -m pip install --quiet --no-deps --no-compile --disable-pip-version-check --root-user-action=ignore \
    --target "$directory.partial" "$@"
  mv "$directory.partial" "$directory"
}

say "LibTorch $torch_version"
cuda_runtime=("nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cupti==13.0.*")
# libtorch_cuda.so links against these; only a machine with a CUDA toolkit builds the plugin that needs it.
cuda_libraries=(nvidia-cusparselt-cu13==0.8.0 nvidia-nvshmem-cu13==3.4.5 nvidia-cufile nvidia-nccl-cu13==2.28.9
  nvidia-cudnn-cu13==9.19.0.56)
libtorch=$(find_libtorch)
if [ ! -e "$libtorch/lib/libtorch_cpu.so" ]; then
  requirements=("torch==$torch_version" "${cuda_runtime[@]}")
  [ -z "$(find_nvcc)" ] || requirements+=("${cuda_libraries[@]}")
  echo "installing ${requirements[*]}"
  pip_target "$packages/libtorch-$torch_version" "${requirements[@]}"
fi
echo "$libtorch"

say "Arrow (for Parquet) $arrow_version"
if [ ! -e "$packages/pyarrow-$arrow_version/pyarrow" ]; then
  pip_target "$packages/pyarrow-$arrow_version" "pyarrow==$arrow_version"
fi
echo "$packages/pyarrow-$arrow_version/pyarrow"

if [ "$peers" = yes ]; then
  say "The reference packages"
  requirements=(torch==$torch_version transformers==5.23.0 tokenizers==0.23.3 trl==1.16.0 peft==0.21.2 accelerate==1.15.0
    datasets==5.2.0 sentence-transformers==6.2.0 bitsandbytes==0.50.2 pyarrow==$arrow_version safetensors==0.8.0
    tensorboard==2.21.0 math-verify==0.9.0 antlr4-python3-runtime==4.13.2
    sentencepiece==0.2.3 tiktoken==0.14.0 torchao==0.17.0)
  stamp="$packages/peers/installed"
  if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "${requirements[*]}" ]; then
    echo "installing ${requirements[*]} (several GB)"
    [ -x "$packages/peers/bin/python" ] || python3 -m venv "$packages/peers"
    "$packages/peers/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
    printf '%s' "${requirements[*]}" >"$stamp"
  fi
  echo "$packages/peers/bin/python"
fi
