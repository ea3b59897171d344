# Sourced from a packed tree: what its programs need of the environment. torch: the directory of the machine's torch package
# (lib/libtorch_cpu.so). Where the machine's own LD_LIBRARY_PATH leads, a driver may be.
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
site=$(dirname "$torch")
path=$tree/lib:$torch/lib
for directory in "$site"/nvidia/*/lib /usr/local/cuda/lib64 /usr/local/nvidia/lib64; do
  [ ! -d "$directory" ] || path=$path:$directory
done
export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PATH=$tree/bin:$PATH
export OPAL_PREFIX=$tree OPAL_LIBDIR=$tree/lib OPAL_PKGLIBDIR=$tree/lib/openmpi OPAL_PKGDATADIR=$tree/share/openmpi
export OPAL_SYSCONFDIR=$tree/etc/openmpi
export PMIX_PREFIX=$tree PMIX_LIBDIR=$tree/lib PMIX_PKGLIBDIR=$tree/lib/pmix PMIX_PKGDATADIR=$tree/share/pmix
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm=isolated  # ranks of this host alone: mpirun looks for no ssh, which not every machine has
