#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "recipes/diagnostic.h"

/// Who is here: one process a device, started alone, by mpirun or by srun --mpi=pmix; or, with a
/// rendezvous other than "mpi", by anything that tells each process its rank (store/rendezvous.h).
///
/// Session::start() is called once, before the first LibTorch operation: it recognises the launcher
/// from its environment, initialises MPI (not at all when there is no launcher: that saves a third
/// of a second) or meets the other ranks at the rendezvous, and finds hosts and local ranks.
/// use_threads() then gives this rank its share of
/// the cores (TEMPER_CORES overrides) and LibTorch its threads.
///
///     auto session = parallel::Session::start(recipe.parallel.rendezvous);
///     int code = 0;
///     std::string error;
///     try {
///       session.use_threads(recipe.train.threads);
///       auto communicator = session.communicator(recipe.parallel.timeout);
///       code = run(...);
///     } catch (const parallel::PeerStopped& stopped) {
///       code = stopped.exit_code();                // that rank reports itself
///     } catch (const UserError& wrong) {
///       code = 2, error = wrong.what();            // not printed here: every rank may have found
///       the same
///     } catch (const std::exception& failed) {
///       code = 1, error = failed.what();
///     }
///     code = session.agree_exit_code(code, error);
///     session.finish();
///     return code;
///
/// An error on one rank ends the others: agree_exit_code() with a code other than 0 tells them, and
/// whatever they wait in (a text, a collective) throws PeerStopped. So a rank may throw at any
/// point, and findings that each rank makes for itself need no meeting of their own. Where they
/// should come out together (each rank has read its share of the files):
///
///     const auto findings = session.gather_text(mine);          // rank 0 has them all
///     if (const std::string all = session.broadcast_text(join(findings, "\n")); !all.empty())
///     throw UserError(all);
namespace temper::parallel {

struct World {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // on this host
  int local_size = 1;
  std::string host;
  int threads = 1;  // compute threads of this rank
};

/// "rank 3 on node2", as messages name a rank.
std::string name_of(const World& world);

/// Another rank has ended with an error that it reports itself.
class PeerStopped : public RunError {
 public:
  PeerStopped(int rank, int exit_code);
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// The part of this process in the run. Not copyable; one a process. Calls come from one
/// thread; all but use_threads, set_timeout and finish are collective: every rank makes them in
/// the same order, and waiting costs no core.
class Session {
 public:
  /// Reads the launcher's environment, meets the other ranks as `rendezvous` (parallel.rendezvous)
  /// says, finds hosts and local ranks; log lines know their rank from here on. Throws UserError
  /// for srun without PMIx, for a launcher of another MPI, and for a rendezvous that fails. Ends
  /// the process where MPI has not started within `timeout_seconds` (the default of
  /// parallel.timeout).
  static Session start(const std::string& rendezvous = "mpi",
                       std::optional<double> timeout_seconds = {});
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  const World& world() const;
  /// Sets affinity and LibTorch's thread count, before the first LibTorch operation. `threads` 0:
  /// one for each core of this rank's share, within the cgroup's CPU quota. Throws UserError for
  /// TEMPER_CORES that the host does not allow.
  void use_threads(int threads);
  /// Exchanges of texts time out after `seconds`, as collectives do; until this is called after the
  /// default of parallel.timeout.
  void set_timeout(double seconds);
  /// The group of all ranks, named "world"; collectives time out after `timeout_seconds`, and texts
  /// from here on. Collective; outlived by the session.
  std::unique_ptr<Communicator> communicator(double timeout_seconds);
  /// Every rank gets rank 0's text (used before tensors exist). Throws CollectiveTimeout.
  std::string broadcast_text(const std::string& text);
  /// Rank 0 gets all ranks' texts in rank order, the others an empty list. Throws
  /// CollectiveTimeout.
  std::vector<std::string> gather_text(const std::string& text);
  /// The same exit code on every rank: the largest of all. Collective; called last by launch/.
  /// `error`: what this rank has to say about a code other than 0; rank 0 prints every line once,
  /// and names the rank of a line that not all of them have. A rank with an error waits 10 s for
  /// the others; then it prints its own error, and finish() leaves them to the launcher.
  int agree_exit_code(int code, const std::string& error = "");
  /// Leaves in order (MPI_Finalize, never MPI_Abort): user errors end with the same code on every
  /// rank.
  void finish();

 private:
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace temper::parallel
