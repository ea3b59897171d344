#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/store/key_store.h"
#include "parallel/world.h"

/// What texts, collectives and the end of a run over a KeyStore have in common: parts that ranks
/// leave and others take, time-outs that name who has not come, and the word that a rank has
/// stopped. Every rank reads what it needs by itself, through rank 0: right for the small exchanges
/// beside NCCL, not for gradients. Used by one thread.
namespace temper::parallel {

/// Parts of one exchange. Every part is taken by `takers` ranks; the last of them removes it.
struct Parts {
  std::string what{};               // "all_reduce 17 in group 'world'"
  std::string base{};               // begins the keys of this exchange alone
  std::vector<std::string> keys{};  // the parts that this rank takes
  std::vector<int> from{};          // the ranks of the world that leave them
  int takers = 1;
};

class StoreExchange {
 public:
  /// `hosts`: of all ranks.
  StoreExchange(std::unique_ptr<KeyStore> store, const World& world, std::vector<std::string> hosts)
      : store_(std::move(store)), world_(world), hosts_(std::move(hosts)) {}

  const World& world() const { return world_; }
  void leave(const std::string& key, const std::string& bytes) { store_->set(key, bytes); }
  bool are_there(const Parts& parts);
  /// Waits for the parts and takes them, in their order. Throws PeerStopped when a rank has called
  /// tell_peers(), CollectiveTimeout that says who has not come.
  std::vector<std::string> take(const Parts& parts, double timeout_seconds);
  /// As take(), whatever peers have to say, and leaving the parts there; empty when they are not
  /// there within `seconds`.
  std::vector<std::string> look(const Parts& parts, double seconds);

  /// Tells every rank that this one has stopped with `exit_code`.
  void tell_peers(int exit_code);
  /// Throws PeerStopped when another rank has called tell_peers().
  void heed_peers();
  /// A line for each rank whose part is not there; "no answer from rank 2 on node1".
  std::vector<std::string> absent(const Parts& parts);
  /// Whether an exchange has timed out.
  bool peers_are_missing() const { return peers_are_missing_; }

 private:
  std::unique_ptr<KeyStore> store_;
  World world_;
  std::vector<std::string> hosts_;
  bool peers_are_missing_ = false;
  std::deque<std::string> recent_;  // exchanges, the last one last
};

}  // namespace temper::parallel
