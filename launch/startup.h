#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "parallel/world.h"

/// What train, plan, prepare and eval do around their work, so that all ranks end alike.
namespace temper::launch {

/// Starts the session (`rendezvous`: parallel.rendezvous, where there is a recipe), runs `body` and returns the exit code of all
/// ranks. `body` may throw at any point on any rank: the others are told, wherever they wait; every line of a UserError is printed
/// once (with rank and host when not all ranks found it).
int run_on_all_ranks(const std::function<int(parallel::Session&)>& body, const std::string& rendezvous = "mpi");

/// Whether this host reads a token that rank 0 writes into `directory` (made if need be). Throws UserError where rank 0 cannot. Collective.
bool this_host_sees(parallel::Session& session, const std::filesystem::path& directory);

/// Every host must read a token that rank 0 writes into `directory` (made if need be), else UserError naming the host. Collective.
void check_every_host_sees(parallel::Session& session, const std::filesystem::path& directory);

/// Every host must have found in `directory` what rank 0 has (a few words), else UserError naming the host: ranks must not part. Collective.
void check_every_host_finds(parallel::Session& session, const std::filesystem::path& directory, const std::string& found);

/// LibTorch appends the C++ frames to its messages; they mean nothing to a user.
std::string without_frames(const std::string& message);

/// From now on rank 0's lines also go to `file` (appended).
void write_log_to(const parallel::World& world, const std::filesystem::path& file);

}  // namespace temper::launch
