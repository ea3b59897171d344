#include "parallel/log.h"

#include <cstdio>
#include <mutex>
#include <utility>

#include "parallel/world.h"

namespace temper::parallel {

namespace {

struct Log {
  std::mutex mutex;
  World world;
  std::function<void(const std::string&)> sink;
};

Log& the_log() {
  static Log log;
  return log;
}

// One write a line, so that the lines of several ranks do not mix.
void print(std::FILE* stream, std::string line, const Log& log) {
  if (log.sink) log.sink(line);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stream);
  std::fflush(stream);
}

}  // namespace

void set_log_world(const World& world) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.world = world;
}

void set_log_sink(std::function<void(const std::string&)> sink) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.sink = std::move(sink);
}

void say(const std::string& line) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  if (log.world.rank == 0) print(stdout, line, log);
}

void warn(const std::string& line, bool on_this_rank) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  const bool named = log.world.rank > 0 || (on_this_rank && log.world.size > 1);
  const std::string name = name_of(log.world) + ": ";
  const bool has_name =
      line.find(name) != std::string::npos;  // errors of a collective name their rank themselves
  print(stderr, named && !has_name ? name + line : line, log);
}

}  // namespace temper::parallel
