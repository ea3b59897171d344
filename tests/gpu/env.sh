# Sourced from a packed tree: what its programs need of the environment. torch: the directory of the machine's torch package
# (lib/libtorch_cpu.so).
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
site=$(dirname "$torch")
LD_LIBRARY_PATH=$tree/lib:$torch/lib
for directory in "$site"/nvidia/*/lib /usr/local/cuda/lib64; do
  [ ! -d "$directory" ] || LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$directory
done
export LD_LIBRARY_PATH
export PATH=$tree/bin:$PATH
export OPAL_PREFIX=$tree OPAL_LIBDIR=$tree/lib OPAL_PKGLIBDIR=$tree/lib/openmpi OPAL_PKGDATADIR=$tree/share/openmpi
export OPAL_SYSCONFDIR=$tree/etc/openmpi
export PMIX_PREFIX=$tree PMIX_LIBDIR=$tree/lib PMIX_PKGLIBDIR=$tree/lib/pmix PMIX_PKGDATADIR=$tree/share/pmix
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
