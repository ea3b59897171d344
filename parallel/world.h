#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"

/// Who is here: one process a device, started alone, by mpirun or by srun --mpi=pmix.
///
/// World::start() is called once, before the first LibTorch operation: it recognises the launcher from its environment,
/// initialises MPI (not at all when there is no launcher: that saves a third of a second), sets this rank's share of the
/// cores (TEMPER_CORES overrides) and the number of LibTorch threads. finish() ends MPI in order; the destructor does not.
namespace temper::parallel {

struct World {
  int rank = 0;
  int size = 1;
  int local_rank = 0;   // on this host
  int local_size = 1;
  std::string host;
  int threads = 1;      // compute threads of this rank
};

struct WorldOptions {
  int threads = 0;                // 0: cores this host allows / ranks on it
  double timeout_seconds = 600;   // of a collective
};

/// The MPI session of this process (or none). Not copyable; one a process.
class Session {
 public:
  /// Reads the launcher's environment, starts MPI where there is one, finds hosts and local ranks.
  static Session start();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  const World& world() const;
  /// Sets affinity and LibTorch's thread count. `threads` 0: this rank's share of the allowed cores.
  void use_threads(int threads);
  /// The group of all ranks; collectives time out after `timeout_seconds`.
  std::unique_ptr<Communicator> communicator(double timeout_seconds);
  /// Every rank gets rank 0's text (used before tensors exist, without a time-out).
  std::string broadcast_text(const std::string& text);
  /// Rank 0 gets all ranks' texts in rank order, the others an empty list; no time-out.
  std::vector<std::string> gather_text(const std::string& text);
  /// The same exit code on every rank: the largest of all. Collective; called last by launch/.
  int agree_exit_code(int code);
  /// MPI_Finalize in order. Never MPI_Abort: user errors end with the same code on every rank.
  void finish();

 private:
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace temper::parallel
