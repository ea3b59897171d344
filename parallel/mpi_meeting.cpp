#include "parallel/mpi_meeting.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <functional>
#include <utility>

#include <sched.h>

#include <mpi.h>

#include "parallel/cores.h"
#include "parallel/deadline.h"
#include "parallel/log.h"
#include "parallel/mpi_communicator.h"
#include "parallel/mpi_engine.h"

namespace temper::parallel {

namespace {

// Lengths are ints to MPI: one text of 2 GiB and more is nothing that start-up exchanges.
int length_of(const std::string& text) {
  TEMPER_CHECK(text.size() <= INT_MAX, "a text of 2 GiB");
  return static_cast<int>(text.size());
}

class MpiMeeting : public Meeting {
 public:
  explicit MpiMeeting(const World& world) : world_(world) {
    TEMPER_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &texts_));
    TEMPER_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &exits_));
    engine_ = std::make_shared<MpiEngine>(world);
    for (int rank = 0; rank < world.size; ++rank) {
      if (rank != world.rank) peers_.push_back(rank);
    }
  }

  // What is under way keeps its buffers: a wait that throws leaves it to the engine.
  std::string broadcast_text(const std::string& text) override {
    const std::string what = next_exchange("broadcast");
    const auto length = std::make_shared<int>(length_of(text));
    complete(
        what,
        [=, group = texts_] {
          MPI_Request request;
          TEMPER_MPI(MPI_Ibcast(length.get(), 1, MPI_INT, 0, group, &request));
          return request;
        },
        with_peers());
    const auto bytes = std::make_shared<std::string>(text);
    bytes->resize(*length);
    complete(
        what,
        [=, group = texts_] {
          MPI_Request request;
          TEMPER_MPI(MPI_Ibcast(bytes->data(), *length, MPI_CHAR, 0, group, &request));
          return request;
        },
        with_peers());
    return *bytes;
  }

  std::vector<std::string> gather_text(const std::string& text) override {
    return gather(next_exchange("gather"), text, texts_, with_peers());
  }

  std::unique_ptr<Communicator> communicator() override {
    const auto group = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
    complete(
        next_exchange("meeting"),
        [=] {
          MPI_Request request;
          TEMPER_MPI(MPI_Comm_idup(MPI_COMM_WORLD, group.get(), &request));
          return request;
        },
        with_peers());
    return make_mpi_communicator(engine_, *group, "world", timeout_seconds);
  }

  std::optional<Ending> agree(int code, const std::string& report) override {
    const double limit = engine_->peers_are_missing() ? kLostSeconds : kLeaveSeconds;
    if (code != 0) engine_->tell_peers(code);
    const std::string what = "the end of the run";
    const auto largest = std::make_shared<int>(code);
    const bool all_arrived = complete(
        what,
        [=, group = exits_] {
          MPI_Request request;
          TEMPER_MPI(
              MPI_Iallreduce(MPI_IN_PLACE, largest.get(), 1, MPI_INT, MPI_MAX, group, &request));
          return request;
        },
        code == 0 ? patiently() : for_seconds(limit));
    if (!all_arrived) return {};
    Ending ending{.code = *largest, .reports = {}};
    if (ending.code != 0) ending.reports = gather(what, report, exits_, for_seconds(kLeaveSeconds));
    return ending;
  }

  void finish() override {
    const Deadline deadline("the end of MPI", timeout_seconds);
    engine_->stop();
    MPI_Finalize();
  }

 private:
  /// Waits for an operation; false when it has not ended in time.
  using Wait = std::function<bool(const MpiOperation&)>;
  Wait with_peers() const {
    return [this](const MpiOperation& operation) {
      engine_->wait_for_peers(operation, peers_, timeout_seconds);
      return true;
    };
  }
  /// However long it takes; who may be the reason is said again and again.
  Wait patiently() const {
    return [this](const MpiOperation& operation) {
      while (!engine_->wait(operation, timeout_seconds, false)) {
        const std::vector<std::string> absent = engine_->roll_call(peers_, operation);
        if (!absent.empty())
          warn(operation.what + " has waited: " + join(absent) + ": busy, stuck or lost", true);
      }
      return true;
    };
  }
  /// Whatever peers have to say.
  Wait for_seconds(double limit) const {
    return [this, limit](const MpiOperation& operation) {
      return engine_->wait(operation, limit, false);
    };
  }

  /// Runs one nonblocking call of MPI to its end, or until `wait` gives up.
  bool complete(const std::string& what, const std::function<MPI_Request()>& start,
                const Wait& wait) const {
    const auto operation = std::make_shared<MpiOperation>();
    operation->what = what;
    operation->start = [start](int64_t) { return start(); };
    engine_->submit(operation);
    return wait(*operation);
  }

  std::string next_exchange(const char* name) {
    return name + (" " + std::to_string(++exchanges_)) + " in group 'start-up'";
  }

  // Lists one text a rank, on rank 0; nothing elsewhere, and nothing when `wait` gives up.
  std::vector<std::string> gather(const std::string& what, const std::string& text, MPI_Comm group,
                                  const Wait& wait) const {
    struct Texts {
      std::string own, all;
      int length = 0;
      std::vector<int> lengths, begins;
    };
    const auto kept = std::make_shared<Texts>();
    kept->own = text;
    kept->length = length_of(text);
    kept->lengths.resize(world_.size);
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
    if (!arrived || world_.rank != 0) return gathered;
    for (int rank = 0; rank < world_.size; ++rank)
      gathered.push_back(kept->all.substr(kept->begins[rank], kept->lengths[rank]));
    return gathered;
  }

  World world_;
  std::shared_ptr<MpiEngine> engine_;
  MPI_Comm texts_ = MPI_COMM_NULL;
  // agree(), which a rank may reach while others are anywhere else
  MPI_Comm exits_ = MPI_COMM_NULL;
  std::vector<int> peers_;  // all ranks but this one
  int64_t exchanges_ = 0;   // before there are communicators
};

/// This rank's share of the cores, given what each rank of the host (`local`) is allowed, to share
/// out equal sets and to keep different ones.
std::vector<int> share_cores(const std::vector<int>& own, const World& world, MPI_Comm local) {
  std::vector<char> mask(CPU_SETSIZE, 0);
  for (const int core : own) mask[core] = 1;
  std::vector<char> masks(mask.size() * world.local_size);
  TEMPER_MPI(MPI_Allgather(mask.data(), CPU_SETSIZE, MPI_CHAR, masks.data(), CPU_SETSIZE, MPI_CHAR,
                           local));
  std::vector<std::vector<int>> allowed(world.local_size);
  for (size_t i = 0; i < masks.size(); ++i) {
    if (masks[i] != 0) allowed[i / CPU_SETSIZE].push_back(static_cast<int>(i % CPU_SETSIZE));
  }
  return cores_of_rank(allowed, world.local_rank);
}

}  // namespace

std::unique_ptr<Meeting> meet_by_mpi(World& world, std::vector<int>& cores, int launched_ranks,
                                     double timeout_seconds) {
  const Deadline deadline(world.host + ": the start of MPI", timeout_seconds);
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
  if (launched_ranks != 0 && launched_ranks != world.size) {
    MPI_Finalize();
    throw UserError("the launcher started " + std::to_string(launched_ranks) +
                    " ranks, but MPI sees " + std::to_string(world.size) +
                    ": mpirun and the library that temper is linked with are not of one MPI");
  }
  MPI_Comm local = MPI_COMM_NULL;
  TEMPER_MPI(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &local));
  TEMPER_MPI(MPI_Comm_rank(local, &world.local_rank));
  TEMPER_MPI(MPI_Comm_size(local, &world.local_size));
  set_log_world(world);
  cores = share_cores(cores, world, local);
  TEMPER_MPI(MPI_Comm_free(&local));
  auto meeting = std::make_unique<MpiMeeting>(world);
  meeting->timeout_seconds = timeout_seconds;
  return meeting;
}

}  // namespace temper::parallel
