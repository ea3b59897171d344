#include "parallel/store/exchange.h"

#include <algorithm>
#include <chrono>

#include "parallel/collective_timeout.h"

namespace temper::parallel {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSliceSeconds = 0.1;  // between two looks for a rank that has stopped
constexpr size_t kRecent = 16;
const std::string kStopped = "stopped";  // at this key: rank, space, exit code

// What a rank waits in, for those who miss it elsewhere.
std::string waits_key(int rank) { return "waits/" + std::to_string(rank); }

}  // namespace

bool StoreExchange::are_there(const Parts& parts) {
  return std::all_of(parts.keys.begin(), parts.keys.end(),
                     [&](const std::string& key) { return store_->has(key); });
}

std::vector<std::string> StoreExchange::take(const Parts& parts, double timeout_seconds) {
  recent_.push_back(parts.what + ": waiting");
  if (recent_.size() > kRecent) recent_.pop_front();
  const auto start = Clock::now();
  bool said = false;
  while (!store_->wait(parts.keys, std::min(kSliceSeconds, timeout_seconds))) {
    heed_peers();
    if (!said) store_->set(waits_key(world_.rank), parts.what);
    said = true;
    if (std::chrono::duration<double>(Clock::now() - start).count() <= timeout_seconds) continue;
    const std::string found = join(absent(parts));
    peers_are_missing_ = true;
    throw CollectiveTimeout(name_of(world_) + ": " + parts.what + " waited " +
                                timeout_text(timeout_seconds) + "; " + found +
                                ": lost, stuck or doing something else",
                            {recent_.begin(), recent_.end()});
  }
  if (said) store_->remove(waits_key(world_.rank), 0);

  std::vector<std::string> taken = store_->get(parts.keys);
  const std::string counter = parts.base + "/takers";
  if (parts.takers == 1 || store_->count(counter) == parts.takers) {
    for (size_t i = 0; i < taken.size(); ++i) store_->remove(parts.keys[i], taken[i].size());
    if (parts.takers > 1) store_->remove(counter, 0);
  }
  recent_.back() = parts.what + ": done";
  return taken;
}

std::vector<std::string> StoreExchange::look(const Parts& parts, double seconds) {
  if (!store_->wait(parts.keys, seconds)) return {};
  return store_->get(parts.keys);
}

void StoreExchange::tell_peers(int exit_code) {
  store_->set(kStopped, std::to_string(world_.rank) + " " + std::to_string(exit_code));
}

void StoreExchange::heed_peers() {
  if (!store_->has(kStopped)) return;
  const std::string word = store_->get({kStopped}).front();
  const int rank = std::stoi(word);
  if (rank != world_.rank) throw PeerStopped(rank, std::stoi(word.substr(word.find(' '))));
}

std::vector<std::string> StoreExchange::absent(const Parts& parts) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < parts.keys.size(); ++i) {
    if (store_->has(parts.keys[i])) continue;
    const int rank = parts.from[i];
    const std::string name = name_of({.rank = rank, .host = hosts_[rank]});
    if (store_->has(waits_key(rank))) {
      lines.push_back(name + " waits in " + store_->get({waits_key(rank)}).front());
    } else {
      lines.push_back("no answer from " + name);
    }
  }
  return lines;
}

}  // namespace temper::parallel
