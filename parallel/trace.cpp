#include "parallel/trace.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <utility>

namespace temper::parallel {

namespace {

struct Trace {
  std::atomic<bool> on = false;
  std::mutex mutex;  // of all below
  int rank = 0;
  double origin = 0;
  int64_t operations = 0;
  std::string events;
};

Trace& the_trace() {
  static Trace trace;
  return trace;
}

thread_local std::string label;

std::string numbered(const char* name, int64_t number) {
  return number < 0 ? name : name + (" " + std::to_string(number));
}

std::string microseconds(double time) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", time);
  return text;
}

void add(Trace& trace, const std::string& event) {
  if (!trace.events.empty()) trace.events += ",\n";
  trace.events += event;
}

}  // namespace

void start_trace(int rank, double origin) {
  Trace& trace = the_trace();
  const std::lock_guard lock(trace.mutex);
  trace.rank = rank;
  trace.origin = origin;
  trace.on = true;
}

void stop_trace() { the_trace().on = false; }

bool tracing() { return the_trace().on.load(std::memory_order_relaxed); }

std::string take_trace() {
  Trace& trace = the_trace();
  const std::lock_guard lock(trace.mutex);
  return std::exchange(trace.events, {});
}

double trace_time() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return (std::chrono::duration<double>(now).count() - the_trace().origin) * 1e6;
}

void trace_operation(const std::string& category, const std::string& name, double begin,
                     const std::string& details) {
  const double end = trace_time();
  Trace& trace = the_trace();
  const std::lock_guard lock(trace.mutex);
  if (!trace.on) return;
  // Operations overlap, so each has a number that is nobody else's in the file.
  const std::string rank = std::to_string(trace.rank);
  const std::string id = rank + "/" + std::to_string(++trace.operations);
  const std::string common = "\"cat\":\"" + category + "\",\"name\":\"" + name + "\",\"id\":\"" +
                             id + "\",\"pid\":" + rank + ",\"tid\":0,\"ts\":";
  add(trace, "{\"ph\":\"b\"," + common + microseconds(begin) + ",\"args\":{" + details + "}}");
  add(trace, "{\"ph\":\"e\"," + common + microseconds(end) + "}");
}

TraceSpan::TraceSpan(const char* name, int64_t number)
    : name_(name), number_(number), begin_(tracing() ? trace_time() : -1) {}

TraceSpan::~TraceSpan() {
  if (begin_ < 0) return;
  const double end = trace_time();
  Trace& trace = the_trace();
  const std::lock_guard lock(trace.mutex);
  if (!trace.on) return;
  add(trace, "{\"ph\":\"X\",\"cat\":\"step\",\"name\":\"" + numbered(name_, number_) +
                 "\",\"pid\":" + std::to_string(trace.rank) + ",\"tid\":0,\"ts\":" +
                 microseconds(begin_) + ",\"dur\":" + microseconds(end - begin_) + "}");
}

TraceOperation::TraceOperation(const char* name)
    : name_(name), begin_(tracing() ? trace_time() : -1) {}

TraceOperation::~TraceOperation() {
  if (begin_ >= 0) trace_operation("background", name_, begin_);
}

TraceLabel::TraceLabel(const char* name, size_t number) : before_(std::move(label)) {
  if (tracing()) label = numbered(name, static_cast<int64_t>(number));
}

TraceLabel::~TraceLabel() { label = std::move(before_); }

const std::string& TraceLabel::current() { return label; }

}  // namespace temper::parallel
