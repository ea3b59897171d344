#include "parallel/world.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>
#include <utility>

#include <omp.h>
#include <unistd.h>

#include <ATen/Parallel.h>

#include "parallel/cores.h"
#include "parallel/log.h"
#include "parallel/mpi_meeting.h"
#include "parallel/store/meeting.h"
#include "recipes/recipe.h"
#include "recipes/rendezvous.h"

namespace temper::parallel {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

enum class Launcher { kNone, kMpirun, kSrun };

/// Who started this process. Inside a batch job, but not under srun, Slurm's variables are there
/// too: only a step with several tasks counts.
Launcher find_launcher() {
  if (!environment("OMPI_COMM_WORLD_SIZE").empty()) return Launcher::kMpirun;
  const std::string tasks = environment("SLURM_STEP_NUM_TASKS");
  if (!environment("PMIX_RANK").empty()) return tasks.empty() ? Launcher::kMpirun : Launcher::kSrun;
  if (std::atoi(tasks.c_str()) > 1) {
    throw UserError("started by srun as " + tasks +
                    " tasks that cannot meet: no PMIx in the environment; use srun --mpi=pmix, "
                    "mpirun inside sbatch, or (on CUDA) parallel.rendezvous");
  }
  if (!environment("PMI_RANK").empty()) return Launcher::kMpirun;
  return Launcher::kNone;
}

int size_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"}) {
    if (const std::string size = environment(name); !size.empty()) return std::atoi(size.c_str());
  }
  return 0;
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

std::string name_of(const World& world) {
  return "rank " + std::to_string(world.rank) + " on " + world.host;
}

PeerStopped::PeerStopped(int rank, int exit_code)
    : RunError("rank " + std::to_string(rank) + " stopped with exit code " +
               std::to_string(exit_code)),
      exit_code_(exit_code) {}

struct Session::State {
  World world;
  std::vector<int> cores;
  std::unique_ptr<Meeting> meeting;  // empty: nobody to meet
  bool all_arrived = true;           // at the end
  bool alone() const { return world.size == 1; }
};

namespace {

// `errors`: one text a rank, "host\nlines". Each line once; those that not all ranks with an error
// have are named.
void print_errors(const std::vector<std::string>& errors) {
  std::vector<std::string> lines;                    // in order of appearance
  std::map<std::string, std::vector<int>> ranks_of;  // of a line
  std::vector<std::string> hosts;
  int ranks_with_errors = 0;
  for (size_t rank = 0; rank < errors.size(); ++rank) {
    const std::string& text = errors[rank];
    size_t begin = text.find('\n');
    hosts.push_back(text.substr(0, begin));
    if (begin == std::string::npos) continue;
    ++ranks_with_errors;
    while (begin != std::string::npos) {
      const size_t end = text.find('\n', ++begin);
      const std::string line = text.substr(begin, end - begin);
      std::vector<int>& ranks = ranks_of[line];
      if (ranks.empty()) lines.push_back(line);
      if (ranks.empty() || ranks.back() != static_cast<int>(rank))
        ranks.push_back(static_cast<int>(rank));
      begin = end;
    }
  }
  for (const std::string& line : lines) {
    const std::vector<int>& ranks = ranks_of[line];
    const World first{.rank = ranks.front(), .host = hosts[ranks.front()]};
    const std::string name = name_of(first);
    const bool common =
        ranks.size() == errors.size() || (ranks_with_errors > 1 && ranks.front() == 0);
    // A message that already names its rank is left alone.
    const bool named = line.rfind("rank ", 0) == 0 || line.find(name) != std::string::npos;
    warn(common || named ? line : name + ": " + line);
  }
}

}  // namespace

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Session Session::start(const std::string& rendezvous, std::optional<double> timeout_seconds) {
  const double limit = timeout_seconds.value_or(recipes::Parallel{}.timeout);
  auto state = std::make_unique<State>();
  World& world = state->world;
  world.host = host_name();
  // What is none of the three is a finding of the recipe's, which is read later.
  const auto how = recipes::read_rendezvous(rendezvous).value_or(recipes::Rendezvous{});
  if (how.kind == recipes::Rendezvous::Kind::kMpi) {
    const Launcher launcher = find_launcher();
    state->cores = allowed_cores(launcher == Launcher::kMpirun);
    if (launcher != Launcher::kNone)
      state->meeting = meet_by_mpi(world, state->cores, size_by_launcher(), limit);
  } else {
    state->cores = allowed_cores(/*under_mpirun=*/!environment("OMPI_COMM_WORLD_SIZE").empty());
    if (const auto place = place_by_launcher(); place && place->size > 1)
      state->meeting = meet_by_store(how, *place, world, state->cores, limit);
  }
  set_log_world(world);
  return Session(std::move(state));
}

const World& Session::world() const { return state_->world; }

void Session::use_threads(int threads) {
  if (!bind_to_cores(state_->cores) && !environment("TEMPER_CORES").empty()) {
    throw UserError("TEMPER_CORES = '" + environment("TEMPER_CORES") +
                    "': this host does not allow these cores");
  }
  if (threads == 0) {
    threads = static_cast<int>(state_->cores.size());
    if (const int quota = cpu_quota(); quota > 0) {
      threads = std::min(threads, std::max(1, quota / state_->world.local_size));
    }
  }
  state_->world.threads = threads;
  omp_set_num_threads(threads);
  at::set_num_threads(threads);
}

void Session::set_timeout(double seconds) {
  if (state_->meeting) state_->meeting->timeout_seconds = seconds;
}

std::unique_ptr<Communicator> Session::communicator(double timeout_seconds) {
  set_timeout(timeout_seconds);
  return state_->alone() ? make_solo_communicator() : state_->meeting->communicator();
}

std::string Session::broadcast_text(const std::string& text) {
  if (state_->alone()) return text;
  return state_->meeting->broadcast_text(state_->world.rank == 0 ? text : "");
}

std::vector<std::string> Session::gather_text(const std::string& text) {
  if (state_->alone()) return {text};
  return state_->meeting->gather_text(text);
}

int Session::agree_exit_code(int code, const std::string& error) {
  if (state_->alone()) {
    if (!error.empty()) warn(error);
    return code;
  }
  const std::string& host = state_->world.host;
  const auto ending = state_->meeting->agree(code, error.empty() ? host : host + "\n" + error);
  state_->all_arrived = ending.has_value();
  if (!ending) {
    if (!error.empty()) warn(error, true);
    return std::max(code, 1);
  }
  if (ending->code != 0) print_errors(ending->reports);
  return ending->code;
}

void Session::finish() {
  // Where a rank is lost, the others would wait for it: leaving without makes the launcher end
  // them.
  if (state_->meeting && state_->all_arrived) state_->meeting->finish();
}

}  // namespace temper::parallel
