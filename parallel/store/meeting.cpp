#include "parallel/store/meeting.h"

#include <algorithm>
#include <utility>

#include "parallel/collective_timeout.h"
#include "parallel/cores.h"
#include "parallel/log.h"
#include "parallel/store/communicator.h"
#include "parallel/store/exchange.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

/// Parts with a key for each rank of `world`.
Parts of_all_ranks(std::string what, const std::string& base, int size) {
  Parts parts{.what = std::move(what), .base = base};
  for (int rank = 0; rank < size; ++rank) {
    parts.keys.push_back(base + "/" + std::to_string(rank));
    parts.from.push_back(rank);
  }
  return parts;
}

class StoreMeeting : public Meeting {
 public:
  explicit StoreMeeting(std::shared_ptr<StoreExchange> exchange) : exchange_(std::move(exchange)) {}

  std::string broadcast_text(const std::string& text) override {
    Parts parts = next("broadcast");
    parts.keys = {parts.base};
    parts.from = {0};
    parts.takers = size() - 1;
    if (rank() != 0) return exchange_->take(parts, timeout_seconds).front();
    exchange_->leave(parts.base, text);
    return text;
  }

  std::vector<std::string> gather_text(const std::string& text) override {
    const Parts named = next("gather");
    const Parts parts = of_all_ranks(named.what, named.base, size());
    exchange_->leave(parts.keys[rank()], text);
    if (rank() != 0) return {};
    return exchange_->take(parts, timeout_seconds);
  }

  std::unique_ptr<Communicator> communicator() override {
    const Parts named = next("meeting");
    Parts parts = of_all_ranks(named.what, named.base, size());
    parts.takers = size();
    exchange_->leave(parts.keys[rank()], "");
    exchange_->take(parts, timeout_seconds);
    const std::string id = "world." + std::to_string(++communicators_);
    return make_store_communicator(exchange_, id, "world", timeout_seconds);
  }

  std::optional<Ending> agree(int code, const std::string& report) override {
    try {
      return try_to_agree(code, report);
    } catch (const RunError& lost) {
      if (code == 0) warn(lost.what(), true);
      return {};
    }
  }

  // The store goes with rank 0, so that one leaves last.
  void finish() override {
    if (rank() == 0) exchange_->look(of_all_ranks("", "left", size()), kLeaveSeconds);
  }

 private:
  int rank() const { return exchange_->world().rank; }
  int size() const { return exchange_->world().size; }

  /// The next exchange of texts, without parts.
  Parts next(const char* name) {
    const std::string number = std::to_string(++exchanges_);
    return {.what = name + (" " + number) + " in group 'start-up'", .base = "text/" + number};
  }

  // Each part: the exit code, and below it the report.
  std::optional<Ending> try_to_agree(int code, const std::string& report) {
    const Parts parts = of_all_ranks("the end of the run", "end", size());
    if (code != 0) exchange_->tell_peers(code);
    exchange_->leave(parts.keys[rank()], std::to_string(code) + "\n" + report);
    const double limit = code == 0                        ? timeout_seconds
                         : exchange_->peers_are_missing() ? kLostSeconds
                                                          : kLeaveSeconds;
    std::vector<std::string> texts = exchange_->look(parts, limit);
    while (texts.empty() && code == 0) {
      const std::vector<std::string> absent = exchange_->absent(parts);
      if (!absent.empty())
        warn(parts.what + " has waited: " + join(absent) + ": busy, stuck or lost", true);
      texts = exchange_->look(parts, limit);
    }
    if (texts.empty()) return {};
    Ending ending;
    for (const std::string& text : texts) {
      ending.code = std::max(ending.code, std::stoi(text));
      if (rank() == 0) ending.reports.push_back(text.substr(text.find('\n') + 1));
    }
    exchange_->leave("left/" + std::to_string(rank()), "");
    return ending;
  }

  std::shared_ptr<StoreExchange> exchange_;
  int64_t exchanges_ = 0;
  int64_t communicators_ = 0;
};

/// What each rank says of itself: its host, and the cores that it is allowed.
struct Presence {
  std::string host;
  std::vector<int> cores;
};

std::string written(const Presence& presence) {
  return presence.host + "\n" + format_core_list(presence.cores);
}

Presence read_presence(const std::string& text) {
  const size_t line = text.find('\n');
  return {.host = text.substr(0, line),
          .cores = parse_core_list(text.substr(line + 1), "cores of another rank")};
}

/// All ranks' presences. `where`: the rendezvous, for messages.
std::vector<Presence> gather_presences(KeyStore& store, const World& world, const Presence& own,
                                       const std::string& where, double timeout_seconds) try {
  if (store.count("joined/" + std::to_string(world.rank)) > 1)
    throw UserError(where + "rank " + std::to_string(world.rank) +
                    " is there twice: two runs use this rendezvous, or processes have the same "
                    "rank in their environment");
  const std::vector<std::string> keys = of_all_ranks("", "here", world.size).keys;
  store.set(keys[world.rank], written(own));
  if (!store.wait(keys, timeout_seconds)) {
    std::vector<std::string> absent;
    for (int rank = 0; rank < world.size; ++rank) {
      if (!store.has(keys[rank])) absent.push_back(std::to_string(rank));
    }
    throw UserError(where + (absent.size() == 1 ? "rank " : "ranks ") + join(absent) + " of " +
                    std::to_string(world.size) + " did not come within " +
                    timeout_text(timeout_seconds));
  }
  std::vector<Presence> presences;
  for (const std::string& text : store.get(keys)) presences.push_back(read_presence(text));
  return presences;
} catch (const RunError& lost) {
  throw UserError(where + lost.what());
}

}  // namespace

std::unique_ptr<Meeting> meet_by_store(const recipes::Rendezvous& rendezvous, const Place& place,
                                       World& world, std::vector<int>& cores,
                                       double timeout_seconds) {
  world.rank = place.rank;
  world.size = place.size;
  set_log_world(world);
  auto store = open_store(rendezvous, world.rank, world.host, timeout_seconds);
  const std::string where = "parallel.rendezvous = \"" + text_of(rendezvous) + "\": ";
  const auto presences =
      gather_presences(*store, world, {world.host, cores}, where, timeout_seconds);

  // Ranks of one host, in the order of their numbers, as MPI counts them.
  std::vector<std::string> hosts;
  std::vector<std::vector<int>> allowed;
  int place_on_host = 0;
  for (int rank = 0; rank < world.size; ++rank) {
    hosts.push_back(presences[rank].host);
    if (hosts.back() != world.host) continue;
    if (rank < world.rank) ++place_on_host;
    allowed.push_back(presences[rank].cores);
  }
  world.local_size = static_cast<int>(allowed.size());
  world.local_rank = place.local_rank.value_or(place_on_host);
  cores = cores_of_rank(allowed, place_on_host);
  if (world.rank == 0) close_rendezvous(rendezvous);

  auto meeting = std::make_unique<StoreMeeting>(
      std::make_shared<StoreExchange>(std::move(store), world, std::move(hosts)));
  meeting->timeout_seconds = timeout_seconds;
  return meeting;
}

}  // namespace temper::parallel
