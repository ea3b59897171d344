#include "parallel/world.h"

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <utility>

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <ATen/Parallel.h>
#include <mpi.h>

#include "parallel/cores.h"
#include "parallel/deadline.h"
#include "parallel/log.h"
#include "parallel/mpi_communicator.h"
#include "parallel/mpi_engine.h"
#include "recipes/recipe.h"

namespace temper::parallel {

namespace {

// How long a rank with an error waits for the others to hear of it.
constexpr double kLeaveSeconds = 10;
// The same where some of them do not answer anyway.
constexpr double kLostSeconds = 1;

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
                    " tasks that cannot meet: no PMIx in the environment; use srun --mpi=pmix, or "
                    "mpirun inside sbatch");
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
  std::shared_ptr<MpiEngine> engine;  // empty: no launcher, no MPI
  MPI_Comm texts = MPI_COMM_NULL;     // Session's own messages
  MPI_Comm exits =
      MPI_COMM_NULL;  // agree_exit_code, which a rank may reach while others are anywhere else
  bool all_arrived = true;  // at the end
  double timeout_seconds = recipes::Parallel{}.timeout;
  std::vector<int> peers;  // all ranks but this one
  int64_t exchanges = 0;   // before there are communicators

  /// Waits for an operation; false when it has not ended in time.
  using Wait = std::function<bool(const MpiOperation&)>;
  Wait with_peers() const {
    return [this](const MpiOperation& operation) {
      engine->wait_for_peers(operation, peers, timeout_seconds);
      return true;
    };
  }
  /// However long it takes; who may be the reason is said again and again.
  Wait patiently() const {
    return [this](const MpiOperation& operation) {
      while (!engine->wait(operation, timeout_seconds, false)) {
        const std::vector<std::string> absent = engine->roll_call(peers, operation);
        if (!absent.empty())
          warn(operation.what + " has waited: " + join(absent) + ": busy, stuck or lost", true);
      }
      return true;
    };
  }
  /// Whatever peers have to say.
  Wait for_seconds(double limit) const {
    return [this, limit](const MpiOperation& operation) {
      return engine->wait(operation, limit, false);
    };
  }

  /// Runs one nonblocking call of MPI to its end, or until `wait` gives up.
  bool complete(const std::string& what, const std::function<MPI_Request()>& start,
                const Wait& wait) const {
    const auto operation = std::make_shared<MpiOperation>();
    operation->what = what;
    operation->start = [start](int64_t) { return start(); };
    engine->submit(operation);
    return wait(*operation);
  }
  std::string next_exchange(const char* name) {
    return name + (" " + std::to_string(++exchanges)) + " in group 'start-up'";
  }

  std::string broadcast(std::string text);
  std::vector<std::string> gather(const std::string& what, const std::string& text, MPI_Comm group,
                                  const Wait& wait) const;
  void print_errors(const std::vector<std::string>& errors) const;
};

// Lengths are ints to MPI: one text of 2 GiB and more is nothing that start-up exchanges.
static int length_of(const std::string& text) {
  TEMPER_CHECK(text.size() <= INT_MAX, "a text of 2 GiB");
  return static_cast<int>(text.size());
}

// What is under way keeps its buffers: a wait that throws leaves it to the engine.
std::string Session::State::broadcast(std::string text) {
  const std::string what = next_exchange("broadcast");
  const auto length = std::make_shared<int>(length_of(text));
  complete(
      what,
      [=, group = texts] {
        MPI_Request request;
        TEMPER_MPI(MPI_Ibcast(length.get(), 1, MPI_INT, 0, group, &request));
        return request;
      },
      with_peers());
  const auto bytes = std::make_shared<std::string>(std::move(text));
  bytes->resize(*length);
  complete(
      what,
      [=, group = texts] {
        MPI_Request request;
        TEMPER_MPI(MPI_Ibcast(bytes->data(), *length, MPI_CHAR, 0, group, &request));
        return request;
      },
      with_peers());
  return *bytes;
}

// Lists one text a rank, on rank 0; nothing elsewhere, and nothing when `wait` gives up.
std::vector<std::string> Session::State::gather(const std::string& what, const std::string& text,
                                                MPI_Comm group, const Wait& wait) const {
  struct Texts {
    std::string own, all;
    int length = 0;
    std::vector<int> lengths, begins;
  };
  const auto kept = std::make_shared<Texts>();
  kept->own = text;
  kept->length = length_of(text);
  kept->lengths.resize(world.size);
  bool arrived = complete(
      what,
      [=] {
        MPI_Request request;
        TEMPER_MPI(MPI_Igather(&kept->length, 1, MPI_INT, kept->lengths.data(), 1, MPI_INT, 0,
                               group, &request));
        return request;
      },
      wait);
  if (!arrived) return {};
  int64_t total = 0;
  for (const int length : kept->lengths) {
    kept->begins.push_back(static_cast<int>(total));
    total += length;
  }
  TEMPER_CHECK(total <= INT_MAX, "texts of 2 GiB");
  kept->all.resize(total);
  arrived = complete(
      what,
      [=] {
        MPI_Request request;
        TEMPER_MPI(MPI_Igatherv(kept->own.data(), kept->length, MPI_CHAR, kept->all.data(),
                                kept->lengths.data(), kept->begins.data(), MPI_CHAR, 0, group,
                                &request));
        return request;
      },
      wait);
  std::vector<std::string> gathered;
  if (!arrived || world.rank != 0) return gathered;
  for (int rank = 0; rank < world.size; ++rank)
    gathered.push_back(kept->all.substr(kept->begins[rank], kept->lengths[rank]));
  return gathered;
}

// `errors`: one text a rank, "host\nlines". Each line once; those that not all ranks with an error
// have are named.
void Session::State::print_errors(const std::vector<std::string>& errors) const {
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

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Session Session::start(std::optional<double> timeout_seconds) {
  auto state = std::make_unique<State>();
  state->timeout_seconds = timeout_seconds.value_or(state->timeout_seconds);
  World& world = state->world;
  world.host = host_name();
  const Launcher launcher = find_launcher();
  const std::vector<int> own_cores = allowed_cores(launcher == Launcher::kMpirun);
  if (launcher == Launcher::kNone) {
    state->cores = own_cores;
    set_log_world(world);
    return Session(std::move(state));
  }

  const Deadline deadline(world.host + ": the start of MPI", state->timeout_seconds);
  // Open MPI's own choice for a sum in place is a tree, which uses one direction of a link at a
  // time; this halves and doubles.
  setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3", /*overwrite=*/0);
  int provided = MPI_THREAD_SINGLE;
  TEMPER_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided));
  TEMPER_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  TEMPER_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank));
  TEMPER_MPI(MPI_Comm_size(MPI_COMM_WORLD, &world.size));
  set_log_world(world);
  if (provided < MPI_THREAD_SERIALIZED) {
    throw RunError(
        "this MPI does not allow calls from several threads (MPI_THREAD_SERIALIZED): use another "
        "build of it");
  }
  if (const int expected = size_by_launcher(); expected != 0 && expected != world.size) {
    MPI_Finalize();
    throw UserError("the launcher started " + std::to_string(expected) + " ranks, but MPI sees " +
                    std::to_string(world.size) +
                    ": mpirun and the library that temper is linked with are not of one MPI");
  }
  MPI_Comm local = MPI_COMM_NULL;
  TEMPER_MPI(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &local));
  TEMPER_MPI(MPI_Comm_rank(local, &world.local_rank));
  TEMPER_MPI(MPI_Comm_size(local, &world.local_size));
  set_log_world(world);

  // What each rank of this host is allowed, to share out equal sets and to keep different ones.
  std::vector<char> mask(CPU_SETSIZE, 0);
  for (const int core : own_cores) mask[core] = 1;
  std::vector<char> masks(mask.size() * world.local_size);
  TEMPER_MPI(MPI_Allgather(mask.data(), CPU_SETSIZE, MPI_CHAR, masks.data(), CPU_SETSIZE, MPI_CHAR,
                           local));
  TEMPER_MPI(MPI_Comm_free(&local));
  std::vector<std::vector<int>> allowed(world.local_size);
  for (size_t i = 0; i < masks.size(); ++i) {
    if (masks[i] != 0) allowed[i / CPU_SETSIZE].push_back(static_cast<int>(i % CPU_SETSIZE));
  }
  state->cores = cores_of_rank(allowed, world.local_rank);

  TEMPER_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &state->texts));
  TEMPER_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &state->exits));
  state->engine = std::make_shared<MpiEngine>(world);
  for (int rank = 0; rank < world.size; ++rank) {
    if (rank != world.rank) state->peers.push_back(rank);
  }
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

void Session::set_timeout(double seconds) { state_->timeout_seconds = seconds; }

std::unique_ptr<Communicator> Session::communicator(double timeout_seconds) {
  set_timeout(timeout_seconds);
  if (state_->world.size == 1) return make_solo_communicator();
  const auto group = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
  state_->complete(
      state_->next_exchange("meeting"),
      [=] {
        MPI_Request request;
        TEMPER_MPI(MPI_Comm_idup(MPI_COMM_WORLD, group.get(), &request));
        return request;
      },
      state_->with_peers());
  return make_mpi_communicator(state_->engine, *group, "world", timeout_seconds);
}

std::string Session::broadcast_text(const std::string& text) {
  return state_->world.size == 1 ? text : state_->broadcast(state_->world.rank == 0 ? text : "");
}

std::vector<std::string> Session::gather_text(const std::string& text) {
  if (state_->world.size == 1) return {text};
  return state_->gather(state_->next_exchange("gather"), text, state_->texts, state_->with_peers());
}

int Session::agree_exit_code(int code, const std::string& error) {
  const World& world = state_->world;
  if (world.size == 1) {
    if (!error.empty()) warn(error);
    return code;
  }
  const double limit = state_->engine->peers_are_missing() ? kLostSeconds : kLeaveSeconds;
  if (code != 0) state_->engine->tell_peers(code);
  const std::string what = "the end of the run";
  const auto largest = std::make_shared<int>(code);
  state_->all_arrived = state_->complete(
      what,
      [=, group = state_->exits] {
        MPI_Request request;
        TEMPER_MPI(
            MPI_Iallreduce(MPI_IN_PLACE, largest.get(), 1, MPI_INT, MPI_MAX, group, &request));
        return request;
      },
      code == 0 ? state_->patiently() : state_->for_seconds(limit));
  if (!state_->all_arrived) {
    if (!error.empty()) warn(error, true);
    return code;
  }
  const int agreed = *largest;
  if (agreed != 0) {
    const std::string report = error.empty() ? world.host : world.host + "\n" + error;
    state_->print_errors(
        state_->gather(what, report, state_->exits, state_->for_seconds(kLeaveSeconds)));
  }
  return agreed;
}

void Session::finish() {
  if (!state_->engine) return;
  // Where a rank is lost, MPI_Finalize would wait for it: leaving without makes the launcher end
  // all the others.
  if (!state_->all_arrived) return;
  const Deadline deadline("the end of MPI", state_->timeout_seconds);
  state_->engine->stop();
  MPI_Finalize();
}

}  // namespace temper::parallel
