#include "parallel/mpi_engine.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <unordered_map>

#include "parallel/collective_timeout.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

using Clock = std::chrono::steady_clock;

// Of a group. More at once were slower: each brings a buffer of MPI's own, and together they leave
// the cache.
constexpr int kPiecesInFlight = 1;
constexpr auto kSpin = std::chrono::microseconds(200);
constexpr auto kLongestSleep = std::chrono::microseconds(2000);
constexpr int kFarewellTag = 1;
constexpr int kRollCallTag = 2;
constexpr int kAnswerTag = 3;
constexpr double kRollCallSeconds = 1;
constexpr size_t kRecent = 16;
constexpr int kHostLength = 256;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Sleeps for a tenth of the time that nothing has happened for, so that neither a core nor much
/// time is lost.
class Patience {
 public:
  explicit Patience(std::chrono::microseconds shortest) : shortest_(shortest) {}
  void progressed() { since_ = Clock::now(); }
  Clock::duration idle() const { return Clock::now() - since_; }
  void pause() const {
    const auto tenth = std::chrono::duration_cast<std::chrono::microseconds>(idle() / 10);
    std::this_thread::sleep_for(
        std::clamp<std::chrono::microseconds>(tenth, shortest_, kLongestSleep));
  }

 private:
  std::chrono::microseconds shortest_;
  Clock::time_point since_ = Clock::now();
};

}  // namespace

void check_mpi(int error, const char* call) {
  if (error == MPI_SUCCESS) return;
  char reason[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(error, reason, &length);
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const std::string_view text = call;
  throw RunError("rank " + std::to_string(rank) + ": " +
                 std::string(text.substr(0, text.find('('))) + ": " + std::string(reason, length));
}

MpiEngine::MpiEngine(const World& world) : world_(world) {
  TEMPER_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &control_));
  std::string own = world.host.substr(0, kHostLength - 1);
  own.resize(kHostLength, '\0');
  std::string all(own.size() * world.size, '\0');
  TEMPER_MPI(MPI_Allgather(own.data(), kHostLength, MPI_CHAR, all.data(), kHostLength, MPI_CHAR,
                           control_));
  for (int rank = 0; rank < world.size; ++rank) hosts_.emplace_back(&all[rank * own.size()]);
}

MpiEngine::~MpiEngine() { stop(); }

void MpiEngine::stop() {
  {
    const std::lock_guard lock(idle_mutex_);
    stop_ = true;
  }
  idle_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MpiEngine::exclusively(const std::function<void()>& call) {
  const std::lock_guard lock(mutex_);
  call();
}

void MpiEngine::submit(const std::shared_ptr<MpiOperation>& operation) {
  {
    const std::lock_guard lock(incoming_mutex_);
    incoming_.push_back(operation);
  }
  if (mutex_.try_lock()) {
    advance();
    mutex_.unlock();
  }
  {
    const std::lock_guard lock(idle_mutex_);
    ++unfinished_;
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  idle_.notify_one();
}

bool MpiEngine::done(const MpiOperation& operation) {
  const std::lock_guard lock(mutex_);
  advance();
  return operation.done;
}

bool MpiEngine::wait(const MpiOperation& operation, double timeout_seconds, bool heed_peers) {
  {
    const std::lock_guard lock(idle_mutex_);
    ++waiting_;
  }
  const auto leave = [this](void*) {
    const std::lock_guard lock(idle_mutex_);
    --waiting_;
    idle_.notify_one();
  };
  const std::unique_ptr<void, decltype(leave)> guard(this, leave);

  const auto start = Clock::now();
  Patience patience(std::chrono::microseconds(20));
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (advance()) patience.progressed();
      if (operation.done) {
        if (operation.error) std::rethrow_exception(operation.error);
        return true;
      }
      waiting_for_ = operation.what;
      read_messages();
      if (heed_peers) throw_if_stopped();
    }
    if (timeout_seconds > 0 && seconds_since(start) > timeout_seconds) return false;
    if (patience.idle() < kSpin) {
      std::this_thread::yield();
    } else {
      patience.pause();
    }
  }
}

void MpiEngine::heed_peers() {
  const std::lock_guard lock(mutex_);
  read_messages();
  throw_if_stopped();
}

void MpiEngine::throw_if_stopped() const {
  if (stopped_peer_ >= 0) throw PeerStopped(stopped_peer_, stopped_code_);
}

void MpiEngine::wait_for_peers(const MpiOperation& operation, const std::vector<int>& peers,
                               double timeout_seconds) {
  if (wait(operation, timeout_seconds)) return;
  const std::vector<std::string> lines = roll_call(peers, operation);
  const std::string found = lines.empty() ? "all ranks wait in it: the link is too slow or stuck"
                                          : join(lines) + ": lost, stuck or doing something else";
  throw CollectiveTimeout(name_of(world_) + ": " + operation.what + " waited " +
                              timeout_text(timeout_seconds) + "; " + found,
                          recent());
}

void MpiEngine::tell_peers(int exit_code) {
  const std::lock_guard lock(mutex_);
  farewell_code_ = exit_code;
  for (int peer = 0; peer < world_.size; ++peer) {
    if (peer == world_.rank) continue;
    // Never waited for: a peer that is about to end by itself does not read it.
    TEMPER_MPI(MPI_Isend(&farewell_code_, 1, MPI_INT, peer, kFarewellTag, control_,
                         &farewells_.emplace_back()));
  }
}

void MpiEngine::read_messages() {
  while (true) {
    int arrived = 0;
    MPI_Status status;
    TEMPER_MPI(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &arrived, &status));
    if (arrived == 0) return;
    const int peer = status.MPI_SOURCE;
    const int tag = status.MPI_TAG;
    if (tag == kFarewellTag) {
      stopped_peer_ = peer;
      TEMPER_MPI(MPI_Recv(&stopped_code_, 1, MPI_INT, peer, tag, control_, MPI_STATUS_IGNORE));
      return;
    }
    int length = 0;
    TEMPER_MPI(MPI_Get_count(&status, MPI_CHAR, &length));
    std::string text(length, '\0');
    TEMPER_MPI(MPI_Recv(text.data(), length, MPI_CHAR, peer, tag, control_, MPI_STATUS_IGNORE));
    if (tag == kRollCallTag) {
      send_text(waiting_for_, peer, kAnswerTag);
    } else {
      answers_[peer] = std::move(text);
    }
  }
}

// Never waited for, like a farewell.
void MpiEngine::send_text(const std::string& text, int peer, int tag) {
  auto& [kept, request] = sent_.emplace_back(text, MPI_REQUEST_NULL);
  TEMPER_MPI(MPI_Isend(kept.data(), static_cast<int>(kept.size()), MPI_CHAR, peer, tag, control_,
                       &request));
}

std::vector<std::string> MpiEngine::roll_call(const std::vector<int>& peers,
                                              const MpiOperation& operation) {
  const auto start = Clock::now();
  bool asked = false;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (!asked) {
        answers_.clear();
        for (const int peer : peers) send_text("", peer, kRollCallTag);
        asked = true;
      }
      advance();
      read_messages();
      if (answers_.size() == peers.size() || seconds_since(start) > kRollCallSeconds) break;
    }
    std::this_thread::sleep_for(kLongestSleep);
  }
  std::vector<std::string> lines;
  for (const int peer : peers) {
    const std::string name = name_of({.rank = peer, .host = hosts_[peer]});
    const auto answer = answers_.find(peer);
    if (answer == answers_.end()) {
      peers_are_missing_ = true;
      lines.push_back("no answer from " + name);
    } else if (answer->second != operation.what) {
      lines.push_back(name + " waits in " + answer->second);
    }
  }
  return lines;
}

std::vector<std::string> MpiEngine::recent() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  for (const auto& operation : recent_) {
    const auto ended = operation->started - static_cast<int64_t>(operation->in_flight.size());
    lines.push_back(operation->what + ": " +
                    (operation->done ? "done"
                                     : std::to_string(ended) + " of " +
                                           std::to_string(operation->pieces) + " pieces done"));
  }
  return lines;
}

// Tests what is under way and starts what may start; true when a piece was finished. All ranks
// start the pieces of a group in the same order, whatever the timing: an operation starts pieces
// only when all earlier ones of its group have started theirs.
bool MpiEngine::advance() {
  {
    const std::lock_guard lock(incoming_mutex_);
    active_.insert(active_.end(), incoming_.begin(), incoming_.end());
    recent_.insert(recent_.end(), incoming_.begin(), incoming_.end());
    incoming_.clear();
  }
  while (recent_.size() > kRecent) recent_.pop_front();
  bool progress = false;
  struct Group {
    int in_flight = 0;
    bool closed = false;
  };
  std::unordered_map<int, Group> groups;
  for (const auto& operation : active_) {
    Group& group = groups[operation->group];
    try {
      while (!operation->in_flight.empty()) {
        int complete = 0;
        TEMPER_MPI(MPI_Test(&operation->in_flight.front(), &complete, MPI_STATUS_IGNORE));
        if (complete == 0) break;
        operation->in_flight.pop_front();
        progress = true;
      }
      group.in_flight += static_cast<int>(operation->in_flight.size());
      while (operation->started < operation->pieces &&
             (operation->group == 0 || (!group.closed && group.in_flight < kPiecesInFlight))) {
        operation->in_flight.push_back(operation->start(operation->started));
        ++operation->started;
        ++group.in_flight;
      }
      group.closed = group.closed || operation->started < operation->pieces;
      operation->done = operation->started == operation->pieces && operation->in_flight.empty();
    } catch (...) {
      operation->error = std::current_exception();
      operation->done = true;
    }
  }
  const auto finished = std::stable_partition(
      active_.begin(), active_.end(), [](const auto& operation) { return !operation->done; });
  if (const auto count = active_.end() - finished; count > 0) {
    std::for_each(finished, active_.end(), [](const auto& operation) {
      if (operation->ended) operation->ended();
      operation->start = nullptr;  // what it holds is not kept for recent()
      operation->tensors.clear();
    });
    active_.erase(finished, active_.end());
    const std::lock_guard lock(idle_mutex_);
    unfinished_ -= static_cast<int>(count);
  }
  return progress;
}

void MpiEngine::run() {
  Patience patience(std::chrono::microseconds(100));
  while (true) {
    {
      std::unique_lock lock(idle_mutex_);
      const auto needed = [this] { return stop_ || (unfinished_ > 0 && waiting_ == 0); };
      if (!needed()) {
        idle_.wait(lock, needed);
        patience.progressed();
      }
      if (stop_) return;
    }
    {
      const std::lock_guard lock(mutex_);
      if (advance()) patience.progressed();
    }
    patience.pause();
  }
}

}  // namespace temper::parallel
