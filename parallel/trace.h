#pragma once

#include <cstdint>
#include <string>

/// What happens when on this rank, as Chrome's trace events (which Perfetto opens). Until
/// start_trace() nothing is recorded and a flag is all that is read.
///
///     const TraceSpan span("backward");          // on the training thread; spans nest
///     const TraceLabel label("bucket", 3);       // collectives that are submitted from here on
///     const TraceOperation write("checkpoint");  // of any thread, on a line of its own
///
/// Every collective is recorded, from its submission to its end, and every wait for one. Names are
/// letters, digits, blanks and slashes. This folder writes no files: trainer/trace_file.h does.
namespace temper::parallel {

/// From now on events are recorded, of process `rank`; `origin`: the steady clock's seconds that
/// are time 0.
void start_trace(int rank, double origin);
void stop_trace();
bool tracing();
/// What was recorded since the last call: JSON objects, a comma and a newline between two.
std::string take_trace();

/// Microseconds since the origin.
double trace_time();
/// An operation that has ended now. `details`: members of a JSON object, or nothing.
void trace_operation(const std::string& category, const std::string& name, double begin,
                     const std::string& details = "");

/// The time from here to the end of the scope.
class TraceSpan {
 public:
  explicit TraceSpan(const char* name, int64_t number = -1);
  ~TraceSpan();
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  const char* name_;
  int64_t number_;
  double begin_;  // below 0: not recorded
};

/// The same for what other threads do, or what overlaps.
class TraceOperation {
 public:
  explicit TraceOperation(const char* name);
  ~TraceOperation();
  TraceOperation(const TraceOperation&) = delete;
  TraceOperation& operator=(const TraceOperation&) = delete;

 private:
  const char* name_;
  double begin_;
};

/// What collectives of this thread are called in the trace until the end of the scope.
class TraceLabel {
 public:
  TraceLabel(const char* name, size_t number);
  ~TraceLabel();
  TraceLabel(const TraceLabel&) = delete;
  TraceLabel& operator=(const TraceLabel&) = delete;
  /// Of the innermost scope; empty: none.
  static const std::string& current();

 private:
  std::string before_;
};

}  // namespace temper::parallel
