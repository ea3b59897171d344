#include "launch/startup.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>

#include "launch/command.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/cpu_allocator.h"

namespace temper::launch {

namespace fs = std::filesystem;

int run_on_all_ranks(const std::function<int(parallel::Session&)>& body, const std::string& rendezvous) {
  trainer::use_caching_cpu_allocator();
  parallel::Session session = parallel::Session::start(rendezvous);
  int code = kDone;      // what the ranks agree on (they return from `body` with the same)
  int failure = kDone;   // what went wrong here
  std::string error;
  try {
    code = body(session);
  } catch (const parallel::PeerStopped& stopped) {
    failure = stopped.exit_code();
  } catch (const UserError& wrong) {
    failure = kWrongInput;
    error = wrong.what();
  } catch (const std::exception& failed) {
    failure = kFailed;
    error = "error: " + without_frames(failed.what());
  }
  // Only failures are told to the others: a rank that ends well must not disturb one that is about to.
  failure = session.agree_exit_code(failure, error);
  parallel::set_log_sink({});
  session.finish();
  return std::max(code, failure);
}

namespace {

/// Removes a file at the end of its scope, also when a peer that has stopped ends it.
struct Removed {
  fs::path file;
  ~Removed() {
    std::error_code ignored;
    if (!file.empty()) fs::remove(file, ignored);
  }
};

}  // namespace

bool this_host_sees(parallel::Session& session, const fs::path& directory) {
  const parallel::World& world = session.world();
  if (world.size == 1) return true;
  const std::string written = session.broadcast_text(world.host + "-" + std::to_string(::getpid()));
  const fs::path token = directory / (".temper-sees-" + written);
  const Removed removed{world.rank == 0 ? token : fs::path()};
  if (world.rank == 0) {
    std::error_code ignored;  // the token cannot be written then
    fs::create_directories(directory, ignored);
    if (!(std::ofstream(token) << written << std::flush)) throw UserError(directory.string() + ": cannot be written on " + world.host);
  }
  session.broadcast_text("written");
  std::string read;
  std::ifstream(token) >> read;
  const bool seen = read == written;
  session.gather_text("looked");
  return seen;
}

namespace {

void refuse_unless(bool same, const parallel::Session& session, const fs::path& directory) {
  if (same) return;
  throw UserError(session.world().host + " does not see " + fs::absolute(directory).string() +
                  " as rank 0 does: all hosts need it on a shared file system (run.output, data.cache)");
}

}  // namespace

void check_every_host_sees(parallel::Session& session, const fs::path& directory) {
  refuse_unless(this_host_sees(session, directory), session, directory);
}

void check_every_host_finds(parallel::Session& session, const fs::path& directory, const std::string& found) {
  refuse_unless(session.broadcast_text(found) == found, session, directory);
}

std::string without_frames(const std::string& message) {
  return message.substr(0, message.find("\nException raised from "));
}

void write_log_to(const parallel::World& world, const fs::path& file) {
  if (world.rank != 0) return;
  auto stream = std::make_shared<std::ofstream>(file, std::ios::app);
  parallel::set_log_sink([stream](const std::string& line) { *stream << line << std::endl; });
}

}  // namespace temper::launch
