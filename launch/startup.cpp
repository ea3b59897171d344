#include "launch/startup.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>

#include "data/io/json.h"
#include "launch/command.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"

namespace temper::launch {

namespace {

namespace fs = std::filesystem;

// How a phase went on one rank, as text that travels.
data::Json finding(int code, std::vector<std::string> lines) { return {{"code", code}, {"lines", std::move(lines)}}; }

// Rank 0 prints each line once: as it is when every rank found it, else with the first rank that did.
int print_findings(const std::vector<std::string>& texts, const std::vector<std::string>& names) {
  int code = kDone;
  std::vector<std::string> order;
  std::map<std::string, std::vector<size_t>> ranks_of;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const data::Json found = data::Json::parse(texts[rank]);
    code = std::max(code, found.at("code").get<int>());
    for (const auto& line : found.at("lines")) {
      auto& ranks = ranks_of[line.get<std::string>()];
      if (ranks.empty()) order.push_back(line.get<std::string>());
      ranks.push_back(rank);
    }
  }
  for (const std::string& line : order) {
    const std::vector<size_t>& ranks = ranks_of[line];
    // What rank 0 found needs no name unless the others would have found it too.
    const bool everywhere = ranks.size() == texts.size() || ranks.front() == 0;
    std::fprintf(stderr, "%s%s\n", everywhere ? "" : (names[ranks.front()] + ": ").c_str(), line.c_str());
  }
  return code;
}

void run_phase(parallel::Session& session, const std::function<void()>& work) {
  data::Json found = finding(kDone, {});
  try {
    work();
  } catch (const UserError& error) {
    found = finding(kWrongInput, error.lines());
  } catch (const std::exception& error) {
    found = finding(kFailed, {std::string("error: ") + error.what()});
  }
  const parallel::World& world = session.world();
  int code = found.at("code");
  if (world.size == 1) {
    if (code != kDone) print_findings({found.dump()}, {""});
  } else {
    found["name"] = "rank " + std::to_string(world.rank) + " on " + world.host;
    const std::vector<std::string> texts = session.gather_text(found.dump());
    if (world.rank == 0) {
      std::vector<std::string> names;
      for (const std::string& text : texts) names.push_back(data::Json::parse(text).at("name"));
      code = print_findings(texts, names);
    }
    code = std::stoi(session.broadcast_text(std::to_string(code)));
  }
  if (code != kDone) throw EndTogether{code};
}

}  // namespace

parallel::Session start_session() {
  parallel::Session session = parallel::Session::start();
  parallel::set_log_world(session.world());
  return session;
}

int together(parallel::Session& session, const std::function<int(Phases&)>& body) {
  Phases phase = [&session](const std::function<void()>& work) { run_phase(session, work); };
  int code = kDone;
  try {
    code = body(phase);
  } catch (const EndTogether& end) {
    code = end.exit_code;
  } catch (const std::exception& error) {
    parallel::warn(std::string("error: ") + error.what(), true);
    if (session.world().size > 1) {
      // The others may be waiting in a collective: only the launcher can end them, and MPI_Finalize would wait for them.
      std::fflush(nullptr);
      std::_Exit(kFailed);
    }
    code = kFailed;
  }
  parallel::set_log_sink({});
  session.finish();
  return code;
}

void check_every_host_sees(parallel::Session& session, const fs::path& directory) {
  const parallel::World& world = session.world();
  if (world.size == 1) return;
  const fs::path token = directory / (".temper-sees-" + session.broadcast_text(std::to_string(std::rand())));
  run_phase(session, [&] {
    if (world.rank != 0) return;
    fs::create_directories(directory);
    if (!(std::ofstream(token) << world.host << "\n")) {
      throw UserError(directory.string() + ": cannot be written on " + world.host);
    }
  });
  std::exception_ptr seen;
  try {
    run_phase(session, [&] {
      if (!fs::exists(token)) {
        throw UserError(world.host + " does not see " + fs::absolute(directory).string() +
                        " as rank 0 does: all hosts need it on a shared file system (run.output, data.cache)");
      }
    });
  } catch (...) {
    seen = std::current_exception();
  }
  if (world.rank == 0) fs::remove(token);
  if (seen) std::rethrow_exception(seen);
}

void write_log_to(const parallel::World& world, const fs::path& file) {
  if (world.rank != 0) return;
  auto stream = std::make_shared<std::ofstream>(file, std::ios::app);
  parallel::set_log_sink([stream](const std::string& line) { *stream << line << std::endl; });
}

}  // namespace temper::launch
