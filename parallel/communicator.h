#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace at {
class Tensor;
}

/// Collectives over one group of ranks: the contract, and its honest implementations (solo, MPI for
/// CPU tensors, NCCL for CUDA tensors in the plugin, and a store of keys for the little on the CPU
/// that a run without MPI exchanges beside NCCL).
///
/// Every call is asynchronous and returns a Work; tensors stay alive and untouched until wait() has
/// returned. All ranks of a group issue the same calls in the same order, from one thread (the
/// training thread). Tensors are contiguous. MPI: float32, float64, int32, int64, uint8 (no bf16:
/// there is no such MPI type). A call that does not finish within the time-out throws RunError that
/// names collective, rank, host and group.
///
///     auto work = communicator.all_reduce(bucket);
///     ...                       // backward goes on
///     work->wait();
namespace temper::parallel {

enum class ReduceOp { kSum, kMax, kMin };

class Work {
 public:
  virtual ~Work() = default;
  /// Returns when the result is in the tensor (CPU) or ordered before the current stream (CUDA).
  /// Throws RunError.
  virtual void wait() = 0;
  virtual bool done() = 0;
};
using WorkPtr = std::unique_ptr<Work>;

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;

  virtual WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op = ReduceOp::kSum) = 0;
  /// `output` [n] receives this rank's n-th of the sum of `input` [size * n].
  virtual WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) = 0;
  /// `output` [size * n] receives every rank's `input` [n], in rank order.
  virtual WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  virtual WorkPtr broadcast(at::Tensor& tensor, int root) = 0;
  /// Block i of `input` goes to rank i; block j of `output` comes from rank j.
  virtual WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) = 0;
  virtual WorkPtr send(const at::Tensor& tensor, int peer, int tag) = 0;
  virtual WorkPtr receive(at::Tensor& tensor, int peer, int tag) = 0;
  virtual void barrier() = 0;
  /// Throws PeerStopped when another rank of the run has ended with an error, as far as this group
  /// hears of it. Soon over, for those who wait for something else meanwhile.
  virtual void heed_peers() {}
  /// A group of the ranks with the same colour, ordered by key. Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key, const std::string& name) = 0;
  /// `buffers` are exchanged again and again: while what is returned lives, the wire knows their
  /// memory and may take it from there without a copy. A hint, where the wire has a use for it;
  /// every rank of the run gives it, each to its group, of buffers of the same sizes.
  virtual std::shared_ptr<void> register_buffers(const std::vector<at::Tensor>& /*buffers*/) {
    return {};
  }
};

/// The group of one: every collective is a copy or nothing.
std::unique_ptr<Communicator> make_solo_communicator();

}  // namespace temper::parallel
