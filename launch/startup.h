#pragma once

#include <filesystem>
#include <functional>

#include "parallel/world.h"
#include "recipes/recipe.h"

/// Starting on many ranks so that all of them end alike: work is done in phases; after each, the ranks exchange what they found,
/// rank 0 prints every finding once, and all leave with the same exit code after MPI_Finalize.
namespace temper::launch {

/// Runs `work` on this rank, then learns how it went on the others. Throws EndTogether when any rank failed.
using Phases = std::function<void(const std::function<void()>& work)>;

/// Thrown on every rank after rank 0 has printed the findings.
struct EndTogether {
  int exit_code;
};

/// Session::start() plus the log's knowledge of rank and host.
parallel::Session start_session();

/// Runs `body`, finishes the session, returns the exit code. What `body` throws outside a phase concerns this rank alone: it is printed
/// with rank and host and the process ends at once, so that the launcher ends the others.
int together(parallel::Session& session, const std::function<int(Phases&)>& body);

/// Every host must see a token that rank 0 writes into `directory`, else exit 2 naming the host. Collective.
void check_every_host_sees(parallel::Session& session, const std::filesystem::path& directory);

/// From now on rank 0's lines also go to `file` (appended).
void write_log_to(const parallel::World& world, const std::filesystem::path& file);

}  // namespace temper::launch
