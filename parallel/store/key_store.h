#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// Bytes by key, kept by rank 0 and reached over TCP by every rank: LibTorch's TCPStore, whose
/// headers stay in key_store.cpp. Any thread may call; a call that waits lets no other in.
///
///     const auto store = rank == 0 ? KeyStore::serve(29500) : KeyStore::join("node1", 29500);
///     store->set("greeting/" + std::to_string(rank), "hello");
///     if (store->wait({"greeting/0"}, 10)) use(store->get({"greeting/0"}));
///
/// Every call throws RunError when rank 0 can no longer be reached.
namespace temper::parallel {

class KeyStore {
 public:
  /// Serves at `port`, on all addresses of this host; 0: at one that is free. Throws UserError
  /// (which says no more than why) where that fails. The store is there as long as this object.
  static std::unique_ptr<KeyStore> serve(int port);
  /// Joins what is served at `port` of `host`, which answers (see store/rendezvous.cpp); null where
  /// it is no such store.
  static std::unique_ptr<KeyStore> join(const std::string& host, int port);
  ~KeyStore();

  int port() const;
  void set(const std::string& key, const std::string& bytes);
  bool has(const std::string& key);
  /// Whether all of `keys` are there within `seconds`.
  bool wait(const std::vector<std::string>& keys, double seconds);
  /// What is at `keys`, which are there.
  std::vector<std::string> get(const std::vector<std::string>& keys);
  /// `bytes`: how many are at `key`.
  void remove(const std::string& key, size_t bytes);
  /// One more at `key`, which holds a number (at first 0): what it is then.
  int64_t count(const std::string& key);

 private:
  struct State;
  explicit KeyStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace temper::parallel
