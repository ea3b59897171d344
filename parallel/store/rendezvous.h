#pragma once

#include <memory>
#include <optional>
#include <string>

#include "parallel/store/key_store.h"
#include "recipes/rendezvous.h"

/// Where ranks that know only their numbers find the store that rank 0 serves.
namespace temper::parallel {

/// What a launcher tells each process.
struct Place {
  int rank = 0;
  int size = 1;
  std::optional<int> local_rank{};
};

/// From the first of these that is in the environment: TEMPER_RANK, TEMPER_WORLD_SIZE and
/// TEMPER_LOCAL_RANK; RANK, WORLD_SIZE and LOCAL_RANK; what mpirun sets; what srun sets. The local
/// rank may be left out. Throws UserError for numbers that do not fit.
std::optional<Place> place_by_launcher();

/// The store of this run, served by rank 0 (`rank` is this one, on `host`): at the port of a
/// tcp rendezvous; else at a free one, which rank 0 writes to the file. The file of an earlier run,
/// where nobody serves any more, is passed over, and rank 0 replaces it. Throws UserError: a host
/// that is unknown or is not rank 0's, a port in use, a file that cannot be written, nobody there
/// within `timeout_seconds`.
std::unique_ptr<KeyStore> open_store(const recipes::Rendezvous& rendezvous, int rank,
                                     const std::string& host, double timeout_seconds);

/// By rank 0, once all have joined: what is left of the rendezvous is removed.
void close_rendezvous(const recipes::Rendezvous& rendezvous);

/// As the recipe says it.
std::string text_of(const recipes::Rendezvous& rendezvous);

}  // namespace temper::parallel
