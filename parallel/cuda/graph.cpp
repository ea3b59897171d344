#include "parallel/cuda/graph.h"

#include <exception>

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace temper::parallel {

namespace {

struct CudaGraph final : DeviceGraph {
  // LibTorch would keep the memory of a pool that nothing uses until there is no other left; its
  // counterpart of pinned memory, which each pinned tensor would look through, for ever.
  ~CudaGraph() override {
    try {
      const c10::MempoolId_t pool = graph.pool();
      graph.reset();
      c10::cuda::CUDACachingAllocator::emptyCache(pool);
      at::getHostAllocator(at::kCUDA)->empty_cache();
    } catch (const std::exception&) {  // nothing was recorded, or the device has failed
    }
  }
  void replay() override { graph.replay(); }
  at::cuda::CUDAGraph graph;
};

// While work is recorded, memory that the allocator keeps for later cannot go back to the device,
// of which the recording's own pool and libraries need some.
void make_room(c10::DeviceIndex device) {
  constexpr size_t kNeeded = size_t{2} << 30;
  auto* const allocator = c10::cuda::CUDACachingAllocator::get();
  if (allocator->getMemoryInfo(device).first < kNeeded) allocator->emptyCache();
}

// The default stream cannot be recorded. One for all that is: libraries keep a workspace a stream.
c10::cuda::CUDAStream stream_to_record(c10::DeviceIndex device) {
  const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream(device);
  if (current != c10::cuda::getDefaultCUDAStream(device)) return current;
  static const c10::cuda::CUDAStream aside =
      c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device);  // a process has one device
  return aside;
}

}  // namespace

// Nothing runs on the stream, so there is nothing that the work around it would have to wait for.
// What other threads do (a checkpoint's copies, NCCL's watch) is none of the recording's business,
// hence the mode; those of backward come in by the stream that they work on.
std::unique_ptr<DeviceGraph> record_graph(int device, const std::function<void()>& work,
                                          DeviceGraph* beside) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  const c10::cuda::CUDAGuard on_device(index);
  const c10::cuda::CUDAStreamGuard on_stream(stream_to_record(index));
  make_room(index);
  auto recorded = std::make_unique<CudaGraph>();
  const c10::MempoolId_t pool =
      beside != nullptr ? static_cast<CudaGraph*>(beside)->graph.pool() : c10::MempoolId_t{0, 0};
  recorded->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  try {
    work();
  } catch (...) {
    const std::exception_ptr first = std::current_exception();
    try {
      recorded->graph.capture_end();  // or the stream would go on recording
    } catch (const std::exception&) {
    }
    std::rethrow_exception(first);
  }
  recorded->graph.capture_end();
  return recorded;
}

}  // namespace temper::parallel
