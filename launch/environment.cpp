#include "launch/environment.h"

#include "launch/version.h"

namespace temper::launch {

data::Json environment(const parallel::World& world) {
  const BuildInfo& build = build_info();
  return {{"temper", build.version},
          {"git_revision", build.git_revision},
          {"build_type", build.build_type},
          {"compiler", build.compiler},
          {"libtorch", build.libtorch},
          {"mpi", mpi_library()},
          {"hdf5", build.hdf5},
          {"parquet", build.parquet},
          {"world", {{"size", world.size}, {"ranks_on_host_0", world.local_size}, {"threads_of_a_rank", world.threads}}},
          {"host", world.host}};
}

}  // namespace temper::launch
