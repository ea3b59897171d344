#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <mpi.h>

#include "parallel/world.h"

/// What keeps MPI going: nonblocking operations, cut into pieces, that somebody tests until they
/// are done. While a thread waits it tests itself (so a small exchange costs no hand-over); while
/// none does, a background thread tests, and sleeps in between so that the cores stay with the
/// computation. With no operation under way that thread sleeps for good.
///
/// Every MPI call after start-up is made under the engine's lock, so MPI_THREAD_SERIALIZED is
/// enough.
namespace temper::parallel {

/// Throws RunError that names call, rank and MPI's reason.
#define TEMPER_MPI(call) ::temper::parallel::check_mpi((call), #call)
void check_mpi(int error, const char* call);

struct MpiOperation {
  std::string what;  // "all_reduce 17 in group 'world'"
  int group = 0;     // operations of one group start in order; group 0: at once
  int64_t pieces = 1;
  std::function<MPI_Request(int64_t piece)> start;
  std::vector<at::Tensor> tensors;  // kept alive until it is done
  std::function<void()> ended;      // called once, with the lock held; may be empty

  // The engine's own.
  int64_t started = 0;
  std::deque<MPI_Request> in_flight;
  std::exception_ptr error;
  bool done = false;
};

class MpiEngine {
 public:
  explicit MpiEngine(const World& world);
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  const World& world() const { return world_; }
  /// A number for MpiOperation::group. Collective only in that all ranks call it equally often.
  int new_group() { return ++groups_; }
  /// Runs `call` with the lock held: for the few blocking calls (MPI_Comm_split).
  void exclusively(const std::function<void()>& call);

  void submit(const std::shared_ptr<MpiOperation>& operation);
  bool done(const MpiOperation& operation);
  /// Returns true when the operation is done, false after `timeout_seconds` (0: no limit). Throws
  /// what the operation threw, and PeerStopped (if `heed_peers`) when another rank has called
  /// tell_peers().
  bool wait(const MpiOperation& operation, double timeout_seconds, bool heed_peers = true);
  /// Throws PeerStopped when another rank has called tell_peers().
  void heed_peers();
  /// As wait(), for `peers` (ranks of the world) who do the same: when the time is over they are
  /// asked who is there, and CollectiveTimeout says who does not answer or waits elsewhere.
  void wait_for_peers(const MpiOperation& operation, const std::vector<int>& peers,
                      double timeout_seconds);
  /// Asks `peers` who is there: a line for each that does not answer within some seconds, or that
  /// waits for something other than `operation`.
  std::vector<std::string> roll_call(const std::vector<int>& peers, const MpiOperation& operation);
  /// Tells every rank that this one has stopped with `exit_code`.
  void tell_peers(int exit_code);
  /// Whether a roll call has had no answer from somebody.
  bool peers_are_missing() const { return peers_are_missing_; }
  /// The last operations, the oldest first, and how far each has come.
  std::vector<std::string> recent();
  /// No MPI call is made from here on, whatever is still under way: MPI_Finalize may follow.
  void stop();

 private:
  bool advance();
  void read_messages();
  void throw_if_stopped() const;
  void send_text(const std::string& text, int peer, int tag);
  void run();

  World world_;
  MPI_Comm control_ = MPI_COMM_NULL;
  std::vector<std::string> hosts_;                // of all ranks
  std::string waiting_for_;                       // what this rank answers a roll call with
  std::unordered_map<int, std::string> answers_;  // of peers
  std::deque<std::pair<std::string, MPI_Request>> sent_;
  bool peers_are_missing_ = false;
  std::vector<MPI_Request> farewells_;
  int farewell_code_ = 0;
  int stopped_peer_ = -1;
  int stopped_code_ = 0;

  int groups_ = 0;
  std::mutex incoming_mutex_;  // submit() must not wait for a test that is adding up a piece
  std::vector<std::shared_ptr<MpiOperation>> incoming_;
  std::mutex mutex_;  // MPI and everything below; taken before incoming_mutex_
  std::vector<std::shared_ptr<MpiOperation>> active_;
  std::deque<std::shared_ptr<MpiOperation>> recent_;

  std::mutex idle_mutex_;
  std::condition_variable idle_;
  int unfinished_ = 0;  // submitted and not done
  int waiting_ = 0;     // threads in wait()
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace temper::parallel
