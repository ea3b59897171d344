# What the launch scripts share; sourced, not run. Sets: root (the repository), packages (where PyPI's libraries go),
# libtorch (the torch directory that the build uses).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TEMPER_PACKAGES=${TEMPER_PACKAGES:-$HOME/.cache/temper}
packages=$TEMPER_PACKAGES
torch_version=2.11.0
arrow_version=26.0.1

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Open MPI refuses to start as root unless told twice; containers and CI machines are root.
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# nvcc is on PATH or in the toolkit's usual place.
find_nvcc() {
  command -v nvcc 2>/dev/null || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; }
}

# The torch directory: the given one, the python's if it is the right version, else the private one.
find_libtorch() {
  if [ -n "${LibTorch_ROOT:-}" ]; then
    echo "$LibTorch_ROOT"
    return
  fi
  local found
  found=$(python3 - "$torch_version" <<'PY' 2>/dev/null
import importlib.util, os, re, sys
spec = importlib.util.find_spec("torch")
directory = os.path.dirname(spec.origin) if spec and spec.origin else ""
if directory and os.path.exists(directory + "/lib/libtorch_cpu.so"):
    version = re.search(r"__version__ *= *'([^'+]*)", open(directory + "/version.py").read())
    if version and version.group(1) == sys.argv[1]:
        print(directory)
PY
)
  if [ -n "$found" ]; then echo "$found"; else echo "$packages/libtorch-$torch_version/torch"; fi
}

# build [PRESET [TARGET]]: configures and builds a preset (release), or a target of it, into build-PRESET. The configuration is only shown when it fails.
build() {
  local preset=${1:-release} output
  say "Building ($preset)"
  output=$(cd "$root" && cmake --preset "$preset" -DLibTorch_ROOT="$(find_libtorch)" 2>&1) ||
    fail "$output"
  cmake --build "$root/build-$preset" --target "${2:-all}"
}
