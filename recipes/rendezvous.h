#pragma once

#include <optional>
#include <string>

namespace temper::recipes {

/// parallel.rendezvous, taken apart.
struct Rendezvous {
  enum class Kind { kMpi, kTcp, kFile };
  Kind kind = Kind::kMpi;
  std::string host{};  // kTcp: where rank 0 runs, and the port that it serves
  int port = 0;
  std::string file{};  // kFile: in a directory that all ranks see
};

/// "mpi", "tcp://host:port" (an IPv6 address in brackets) or "file:///path"; unset: none of them.
std::optional<Rendezvous> read_rendezvous(const std::string& text);

}  // namespace temper::recipes
