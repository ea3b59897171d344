#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"

/// How the ranks of a run have found each other, and what a Session needs of that: over MPI
/// (mpi_meeting.h), or over a store of keys that rank 0 serves (store/meeting.h).
namespace temper::parallel {

/// What all ranks have agreed on at the end of a run.
struct Ending {
  int code = 0;                      // the largest of all
  std::vector<std::string> reports;  // rank 0, when the code is not 0: one a rank
};

/// How long a rank with an error waits for the others to hear of it, and the same where some of
/// them do not answer anyway.
constexpr double kLeaveSeconds = 10;
constexpr double kLostSeconds = 1;

/// Calls are collective (all ranks, in one order, from one thread) and wait without taking a core.
class Meeting {
 public:
  virtual ~Meeting() = default;
  /// Texts, collectives and the end time out after this.
  double timeout_seconds = 0;

  /// As Session's functions of these names.
  virtual std::string broadcast_text(const std::string& text) = 0;
  virtual std::vector<std::string> gather_text(const std::string& text) = 0;
  virtual std::unique_ptr<Communicator> communicator() = 0;

  /// A code other than 0 tells the others, wherever they wait. A rank with code 0 waits however
  /// long it takes, one with another gives up after kLeaveSeconds: nothing is agreed on then.
  virtual std::optional<Ending> agree(int code, const std::string& report) = 0;
  /// After agree() has brought an ending.
  virtual void finish() = 0;
};

}  // namespace temper::parallel
