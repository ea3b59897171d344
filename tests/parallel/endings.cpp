#include <chrono>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include <ATen/ATen.h>

#include "parallel/log.h"
#include "parallel/world.h"

/// How a run ends when something goes wrong on one rank: started by endings_test.sh, written as
/// launch/ does it.
namespace temper::parallel {

namespace {

void wait_in_a_collective(Communicator& group) {
  at::Tensor tensor = at::ones({1 << 20});
  while (true) group.all_reduce(tensor)->wait();
}

int body(const std::string& how, Session& session) {
  const int rank = session.world().rank;
  session.use_threads(0);
  if (how == "same error everywhere") throw UserError("recipe.toml:3: wrong");
  if (how == "error while others exchange texts") {
    if (rank == 1) throw UserError("row 7: wrong");
    session.gather_text("fine");
    session.broadcast_text("fine");
    return 0;
  }
  if (how == "a rank that never comes to exchange texts") {
    session.set_timeout(1);
    if (rank == 0) std::this_thread::sleep_for(std::chrono::seconds(100));
    session.broadcast_text("fine");
  }
  if (how == "a rank that never comes to meet") {
    if (rank == 2) std::this_thread::sleep_for(std::chrono::seconds(100));
    session.communicator(1);
  }
  const auto group = session.communicator(how == "a rank that never comes" ? 1 : 100);
  if (how == "error while others are in a collective") {
    at::Tensor tensor = at::ones({4});
    group->all_reduce(tensor)->wait();
    if (rank == 1) throw UserError("row 9: wrong");
    wait_in_a_collective(*group);
  }
  if (how == "error after an exchange has started") {
    at::Tensor tensor = at::ones({1 << 22});
    const WorkPtr work = group->all_reduce(tensor);
    if (rank == 0) throw RunError("disk full");
    work->wait();
    wait_in_a_collective(*group);
  }
  if (how == "a rank that never comes") {
    if (rank == 0) std::this_thread::sleep_for(std::chrono::seconds(100));
    wait_in_a_collective(*group);
  }
  if (how == "a killed rank") {
    if (rank == 1) std::raise(SIGKILL);
    wait_in_a_collective(*group);
  }
  if (how == "a rank that comes to the end late") {
    session.set_timeout(1);
    if (rank == 1) std::this_thread::sleep_for(std::chrono::seconds(4));
  }
  if (how == "stopped") {
    at::Tensor tensor = at::ones({4});
    group->all_reduce(tensor)->wait();
    return 75;
  }
  return 0;
}

int run(const std::string& how) {
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (how == "a rank that never starts" &&
      (rank == nullptr ? std::getenv("RANK") : rank) == std::string("1")) {
    std::this_thread::sleep_for(std::chrono::seconds(100));
  }
  const char* const rendezvous = std::getenv("TEMPER_TEST_RENDEZVOUS");
  Session session =
      Session::start(rendezvous == nullptr ? "mpi" : rendezvous,
                     how == "a rank that never starts" ? std::optional<double>(1) : std::nullopt);
  int code = 0;
  std::string error;
  try {
    code = body(how, session);
  } catch (const PeerStopped& stopped) {
    code = stopped.exit_code();
  } catch (const UserError& wrong) {
    code = 2;
    error = wrong.what();
  } catch (const std::exception& failed) {
    code = 1;
    error = failed.what();
  }
  code = session.agree_exit_code(code, error);
  session.finish();
  return code;
}

}  // namespace

}  // namespace temper::parallel

int main(int, char** argv) {
  try {
    return temper::parallel::run(argv[1]);
  } catch (const temper::UserError& wrong) {  // nobody was met
    temper::parallel::warn(wrong.what());
    return 2;
  }
}
