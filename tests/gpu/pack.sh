#!/usr/bin/env bash
# Packs what a machine with a GPU needs to test and measure Temper: the program, the CUDA plugin, the tests and benchmarks for
# GPUs and the libraries of this Debian that they use, stripped and relocatable. Torch's own libraries are not in it; check.sh
# takes those of the machine's Python.
#
#   tests/gpu/pack.sh BUILD OUT.tar.zst
#
# BUILD: a build directory (cmake -DTEMPER_BENCH=ON); what is packed is brought up to date there first, for programs and plugin
# must be of one build. OUT: .tar.zst, or .tar.xz for a machine without zstd (python3 -m tarfile -e). Fails above 60 MiB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# = 2 ] || { echo "usage: tests/gpu/pack.sh BUILD OUT.tar.zst" >&2; exit 2; }
build=$(cd "$1" && pwd)
out=$(realpath "$2")
limit=$((60 << 20))

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
tree=$stage/temper-gpu
mkdir -p "$tree/bin" "$tree/lib/openmpi" "$tree/lib/pmix" "$tree/share"

cmake --build "$build" --target temper temper_cuda gpu_test gpu_nccl_test gpu_bench
cp "$build/bin/temper" "$build/tests/gpu_test" "$build/tests/gpu_nccl_test" "$build/bin/gpu_bench" "$tree/bin/"
cp "$build/lib/libtemper_cuda.so" "$tree/lib/"

# Open MPI: its launcher, and the components that ranks on one host use.
ompi() { ompi_info --parsable --path "$1" | sed -n "s/^path:$1://p" | head -1; }
components=$(ompi pkglibdir)
for kind in bml btl_self btl_tcp btl_vader coll_basic coll_inter coll_libnbc coll_self coll_sm coll_sync coll_tuned dfs errmgr ess \
  filem fbtl_posix fcoll_individual fs_ufs grpcomm io_romio iof mpool odls oob osc_rdma osc_sm osc_pt2pt plm_isolated \
  plm_rsh pmix_ext3x pmix_isolated pml_ob1 pstat ras_simulator rcache reachable regx rmaps routed rml rtc_hwloc rtc schizo shmem \
  sec state topo vprotocol allocator compress; do
  for component in "$components"/mca_"$kind"*.so; do
    [ ! -e "$component" ] || cp "$component" "$tree/lib/openmpi/"
  done
done
cp "$(command -v orterun)" "$tree/bin/mpirun"
cp "$(command -v orted)" "$tree/bin/orted"
cp -rL "$(ompi pkgdatadir)" "$tree/share/openmpi"
mkdir -p "$tree/etc/openmpi"
for directory in /usr/lib/*/pmix2/lib/pmix; do
  [ ! -d "$directory" ] || cp "$directory"/*.so "$tree/lib/pmix/"
done
[ ! -d /usr/share/pmix ] || cp -rL /usr/share/pmix "$tree/share/pmix"  # texts of its messages

# Libraries: what all of that needs, but for those that every machine has in a version of its own (glibc, libstdc++) and those
# of torch and the driver.
of_the_machine='^(linux-vdso|ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|libstdc\+\+|libgcc_s|libgomp)[.-]'
of_torch='^(libtorch|libc10|libcuda|libcudart|libcudnn|libcublas|libcufft|libcurand|libcusolver|libcusparse|libcufile|libcupti|libnv|libnccl|libshm)'
needed() { ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u; }
for library in $(needed "$tree"/bin/* "$tree"/lib/openmpi/*.so "$tree"/lib/pmix/*.so); do
  name=$(basename "$library")
  if [[ $name =~ $of_the_machine || $name =~ $of_torch ]]; then continue; fi
  cp -L "$library" "$tree/lib/$name"
done

find "$tree/bin" "$tree/lib" -type f -exec strip --strip-unneeded {} +
# No path of this machine: everything is found beside the programs or by LD_LIBRARY_PATH (env.sh).
printf 'file(RPATH_SET FILE "${FILE}" NEW_RPATH "${PATHS}")\n' >"$stage/rpath.cmake"
for file in "$tree"/bin/* "$tree"/lib/*.so*; do
  ! readelf -d "$file" 2>/dev/null | grep -qE '\((RPATH|RUNPATH)\)' ||
    cmake -DFILE="$file" -DPATHS='$ORIGIN/../lib' -P "$stage/rpath.cmake" >/dev/null
done
cp "$here/check.sh" "$here/env.sh" "$here/peers.py" "$tree/"
# The program's own test (program_test.py) with what it reads.
mkdir -p "$tree/tests/gpu" "$tree/tests/system" "$tree/configs"
cp "$here/program_test.py" "$tree/tests/gpu/"
cp "$here/../system/harness.py" "$here/../system/sharding_test.py" "$tree/tests/system/"
cp -r "$here/../../configs/quickstart" "$tree/configs/"
"$build/bin/temper" --version >"$tree/VERSION"

ZSTD_CLEVEL=12 ZSTD_NBTHREADS=0 XZ_DEFAULTS=-T0 tar -C "$stage" --sort=name --owner=0 --group=0 --mtime=@0 -caf "$out" temper-gpu
size=$(stat -c %s "$out")
printf '%s: %d.%d MiB\n' "$out" $((size >> 20)) $(((size >> 10) % 1024 * 10 / 1024))
[ "$size" -le $limit ] || { echo "pack.sh: above 60 MiB" >&2; exit 1; }
