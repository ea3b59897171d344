#pragma once

#include <functional>
#include <string>

/// Log lines that know their rank. Rank 0 says things; other ranks are silent unless something is
/// wrong, and then the line names rank and host. parallel/ writes no files: a sink (trainer's
/// log.txt) may be attached.
namespace temper::parallel {

struct World;

void set_log_world(const World& world);
/// Receives every line that this rank prints, without the newline. Empty: none.
void set_log_sink(std::function<void(const std::string&)> sink);

/// To standard output, rank 0 only.
void say(const std::string& line);
/// To standard error, on any rank; ranks above 0 are prefixed "rank 3 on node2: " (so is rank 0
/// when the world is larger than one and `line` concerns one rank: pass on_this_rank = true).
void warn(const std::string& line, bool on_this_rank = false);

}  // namespace temper::parallel
