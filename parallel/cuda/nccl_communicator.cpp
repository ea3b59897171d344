#include "parallel/cuda/nccl_communicator.h"

#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include "parallel/collective_timeout.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kHeedEvery = std::chrono::milliseconds(100);
constexpr size_t kSmallestRegistered = 1 << 20;  // bytes; below, an exchange is not about copies

/// One NCCL communicator, its stream, and the state that all its works share.
class Group {
 public:
  Group(Communicator& bootstrap, int device, std::string name, std::string who,
        double timeout_seconds)
      : bootstrap_(bootstrap),
        device_(device),
        name_(std::move(name)),
        who_(std::move(who)),
        timeout_seconds_(timeout_seconds),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true,
                                             static_cast<c10::DeviceIndex>(device))) {}
  // Aborting is local: unlike ncclCommFinalize it never waits for a rank that is lost.
  ~Group() { abort(); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  /// Runs an NCCL call and waits until NCCL has taken it (communicators are non-blocking).
  void call(const std::string& what, const std::function<ncclResult_t()>& nccl) {
    if (aborted_) fail(what, kAborted);
    ncclResult_t result = nccl();
    const auto start = Clock::now();
    while (result == ncclInProgress && comm_ != nullptr) {
      check_time(what, start);
      heed_peers();
      std::this_thread::yield();
      result = async_error();
    }
    if (result != ncclSuccess) fail(what, reason(result));
  }

  /// Whether `end` is reached. Throws when NCCL has noticed an error, or `start` is too long ago.
  bool reached(const at::cuda::CUDAEvent& end, const std::string& what, Clock::time_point start) {
    if (aborted_) fail(what, kAborted);
    if (end.query()) return true;
    if (const ncclResult_t error = async_error(); error != ncclSuccess && error != ncclInProgress) {
      fail(what, reason(error));
    }
    check_time(what, start);
    heed_peers();
    return false;
  }

  /// Null where NCCL does not take it.
  void* register_memory(void* begin, size_t bytes) {
    void* handle = nullptr;
    const bool taken = !aborted_ && ncclCommRegister(comm_, begin, bytes, &handle) == ncclSuccess;
    return taken ? handle : nullptr;
  }
  // What is given up before it is done would still use the memory: that ends with the group.
  void deregister(const std::vector<void*>& handles) {
    if (comm_ != nullptr && cudaStreamQuery(stream_.stream()) != cudaSuccess) abort();
    for (void* const handle : handles) {
      if (comm_ != nullptr) ncclCommDeregister(comm_, handle);
    }
  }

  Communicator& bootstrap() const { return bootstrap_; }
  int device() const { return device_; }
  const std::string& name() const { return name_; }
  const std::string& who() const { return who_; }
  double timeout_seconds() const { return timeout_seconds_; }
  const c10::cuda::CUDAStream& stream() const { return stream_; }
  ncclComm_t comm() const { return comm_; }
  ncclComm_t* comm_slot() { return &comm_; }

 private:
  ncclResult_t async_error() const {
    ncclResult_t error = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &error);
    return asked == ncclSuccess ? error : asked;
  }

  std::string reason(ncclResult_t result) const {
    const char* const detail = comm_ == nullptr ? nullptr : ncclGetLastError(comm_);
    std::string text = ncclGetErrorString(result);
    if (detail != nullptr && *detail != '\0') text += std::string(" (") + detail + ")";
    return text;
  }

  void check_time(const std::string& what, Clock::time_point start) {
    if (std::chrono::duration<double>(Clock::now() - start).count() <= timeout_seconds_) return;
    fail(what, "waited " + timeout_text(timeout_seconds_) +
                   ": a rank is lost, stuck or doing something else");
  }

  // NCCL does not notice a rank that has ended with an error where ranks share a host.
  void heed_peers() {
    const auto now = Clock::now();
    if (now - heeded_ < kHeedEvery) return;
    heeded_ = now;
    try {
      bootstrap_.heed_peers();
    } catch (...) {
      abort();
      throw;
    }
  }

  [[noreturn]] void fail(const std::string& what, const std::string& why) {
    abort();
    throw RunError(who_ + ": " + what + " in group '" + name_ + "': " + why);
  }

  void abort() {
    if (comm_ != nullptr) ncclCommAbort(comm_);
    comm_ = nullptr;
    aborted_ = true;
  }

  static constexpr const char* kAborted = "the group was aborted after an earlier error";

  Communicator& bootstrap_;
  int device_;
  std::string name_;
  std::string who_;
  double timeout_seconds_;
  Clock::time_point heeded_ = Clock::now();
  c10::cuda::CUDAStream stream_;
  ncclComm_t comm_ = nullptr;
  bool aborted_ = false;
};

class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<Group> group, std::string what, std::vector<at::Tensor> tensors,
           at::cuda::CUDAEvent end)
      : group_(std::move(group)),
        what_(std::move(what)),
        tensors_(std::move(tensors)),
        end_(std::move(end)) {}

  void wait() override {
    end_.block(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(group_->device())));
    const auto start = Clock::now();
    auto pause = std::chrono::microseconds(0);
    while (!group_->reached(end_, what_, start)) {
      if (pause.count() == 0) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(pause);
      }
      // Short exchanges are awaited at full speed, long ones leave the core to others.
      if (Clock::now() - start > std::chrono::milliseconds(1))
        pause = std::chrono::microseconds(100);
    }
    tensors_.clear();
  }

  bool done() override { return group_->reached(end_, what_, Clock::now()); }

 private:
  std::shared_ptr<Group> group_;
  std::string what_;
  std::vector<at::Tensor> tensors_;
  at::cuda::CUDAEvent end_;
};

/// Buffers that NCCL knows; they are given back after it has forgotten them.
class Registration {
 public:
  explicit Registration(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  ~Registration() { group_->deregister(handles_); }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  bool add(const at::Tensor& buffer) {
    void* const handle = group_->register_memory(buffer.data_ptr(), buffer.nbytes());
    if (handle == nullptr) return false;
    buffers_.push_back(buffer);
    handles_.push_back(handle);
    return true;
  }

 private:
  std::shared_ptr<Group> group_;
  std::vector<at::Tensor> buffers_;
  std::vector<void*> handles_;
};

ncclDataType_t type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kHalf:
      return ncclFloat16;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kInt:
      return ncclInt32;
    case at::kLong:
      return ncclInt64;
    case at::kByte:
      return ncclUint8;
    default:
      throw RunError(std::string("NCCL cannot add ") + at::toString(tensor.scalar_type()));
  }
}

ncclRedOp_t op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMax:
      return ncclMax;
    case ReduceOp::kMin:
      return ncclMin;
  }
  return ncclNumOps;
}

char* bytes_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<Group> group, int rank, int size)
      : group_(std::move(group)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return group_->name(); }

  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    return start("all_reduce", {tensor}, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), type_of(tensor),
                           op_of(op), comm, stream);
    });
  }

  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return start("reduce_scatter", {output, input}, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclReduceScatter(input.data_ptr(), output.data_ptr(), output.numel(), type_of(input),
                               ncclSum, comm, stream);
    });
  }

  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    return start("all_gather", {output, input}, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllGather(input.data_ptr(), output.data_ptr(), input.nbytes(), ncclUint8, comm,
                           stream);
    });
  }

  WorkPtr broadcast(at::Tensor& tensor, int root) override {
    return start("broadcast", {tensor}, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclUint8, root,
                           comm, stream);
    });
  }

  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    const size_t block = input.nbytes() / size_;
    return start("all_to_all", {output, input}, [&](ncclComm_t comm, cudaStream_t stream) {
      const auto taken = [](ncclResult_t result) {
        return result == ncclSuccess || result == ncclInProgress;
      };
      ncclResult_t result = ncclGroupStart();
      for (int peer = 0; peer < size_ && taken(result); ++peer) {
        result = ncclSend(bytes_of(input) + peer * block, block, ncclUint8, peer, comm, stream);
        if (!taken(result)) break;
        result = ncclRecv(bytes_of(output) + peer * block, block, ncclUint8, peer, comm, stream);
      }
      const ncclResult_t ended = ncclGroupEnd();
      return taken(result) ? ended : result;
    });
  }

  WorkPtr send(const at::Tensor& tensor, int peer, int) override {
    return start("send to rank " + std::to_string(peer), {tensor},
                 [&](ncclComm_t comm, cudaStream_t stream) {
                   return ncclSend(tensor.data_ptr(), tensor.nbytes(), ncclUint8, peer, comm,
                                   stream);
                 });
  }

  WorkPtr receive(at::Tensor& tensor, int peer, int) override {
    return start("receive from rank " + std::to_string(peer), {tensor},
                 [&](ncclComm_t comm, cudaStream_t stream) {
                   return ncclRecv(tensor.data_ptr(), tensor.nbytes(), ncclUint8, peer, comm,
                                   stream);
                 });
  }

  void barrier() override {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(group_->device()));
    at::Tensor nothing =
        at::empty({1}, at::TensorOptions(at::kByte).device(at::kCUDA, group_->device()));
    all_reduce(nothing, ReduceOp::kSum)->wait();
  }

  std::shared_ptr<void> register_buffers(const std::vector<at::Tensor>& buffers) override {
    if (size_ == 1) return {};
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(group_->device()));
    auto registration = std::make_shared<Registration>(group_);
    bool taken = true;
    for (const at::Tensor& buffer : buffers) {
      if (buffer.nbytes() >= kSmallestRegistered) taken = registration->add(buffer) && taken;
    }
    // NCCL does not notice where one rank has registered what another has not: all of them or none.
    at::Tensor refused = at::full({1}, taken ? 0 : 1, at::TensorOptions(at::kLong));
    group_->bootstrap().all_reduce(refused, ReduceOp::kMax)->wait();
    if (refused.item<int64_t>() > 0) registration.reset();
    return registration;
  }

  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(group_->device()));
    auto part = std::make_shared<Group>(group_->bootstrap(), group_->device(), name, group_->who(),
                                        group_->timeout_seconds());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    group_->call("split", [&] {
      return ncclCommSplit(group_->comm(), color, key, part->comm_slot(), &config);
    });
    part->call("split", [] { return ncclInProgress; });  // until the new communicator is ready
    int rank = 0;
    int size = 0;
    part->call("split", [&] { return ncclCommUserRank(part->comm(), &rank); });
    part->call("split", [&] { return ncclCommCount(part->comm(), &size); });
    return std::make_unique<NcclCommunicator>(std::move(part), rank, size);
  }

 private:
  WorkPtr start(const std::string& name, std::vector<at::Tensor> tensors,
                const std::function<ncclResult_t(ncclComm_t, cudaStream_t)>& nccl) {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(group_->device()));
    const std::string what = name + " " + std::to_string(++sequence_);
    for (const at::Tensor& tensor : tensors) {
      if (!tensor.is_contiguous() || !tensor.is_cuda())
        throw RunError(what + ": NCCL takes contiguous CUDA tensors");
      // The allocator must not give the memory away while our stream uses it, even if nobody waits.
      c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), group_->stream());
    }
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(group_->device())));
    ready.block(group_->stream());
    group_->call(what, [&] { return nccl(group_->comm(), group_->stream().stream()); });
    at::cuda::CUDAEvent end;
    end.record(group_->stream());
    return std::make_unique<NcclWork>(group_, what, std::move(tensors), std::move(end));
  }

  std::shared_ptr<Group> group_;
  int rank_;
  int size_;
  int64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& bootstrap, int device,
                                                     const std::string& who,
                                                     double timeout_seconds) {
  ncclUniqueId id = {};
  at::Tensor bytes = at::empty({static_cast<int64_t>(sizeof(id))}, at::TensorOptions(at::kByte));
  auto group = std::make_shared<Group>(bootstrap, device, bootstrap.name(), who, timeout_seconds);
  if (bootstrap.rank() == 0) {
    group->call("ncclGetUniqueId", [&] { return ncclGetUniqueId(&id); });
    std::memcpy(bytes.data_ptr(), &id, sizeof(id));
  }
  bootstrap.broadcast(bytes, 0)->wait();
  std::memcpy(&id, bytes.data_ptr(), sizeof(id));

  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  group->call("start", [&] {
    return ncclCommInitRankConfig(group->comm_slot(), bootstrap.size(), id, bootstrap.rank(),
                                  &config);
  });
  return std::make_unique<NcclCommunicator>(std::move(group), bootstrap.rank(), bootstrap.size());
}

}  // namespace temper::parallel
