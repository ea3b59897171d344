#include "trainer/ops/device.h"

#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "parallel/plugin.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/device_graph.h"

namespace temper::trainer {

namespace {

// Backward runs on threads of its own. Never freed: the device may be gone before the table is.
const void* copy_on(at::Device device, const void* table, int64_t bytes) {
  if (device.is_cpu()) return table;
  static std::mutex mutex;
  static auto& copies = *new std::map<std::pair<const void*, c10::DeviceIndex>, at::Tensor>;
  const std::lock_guard lock(mutex);
  at::Tensor& copy = copies[{table, device.index()}];
  if (!copy.defined()) {
    copy = at::from_blob(const_cast<void*>(table), {bytes}, at::kByte).to(device);
  }
  return copy.const_data_ptr();
}

std::array<const cuda::Kernels*, static_cast<size_t>(at::COMPILE_TIME_MAX_DEVICE_TYPES)> kernels{};

}  // namespace

void use_kernels(at::DeviceType type, const cuda::Kernels* of_type) {
  kernels[static_cast<size_t>(type)] = of_type;
}

at::Device use_cuda(int index, bool deterministic) {
  const parallel::CudaPlugin& plugin = parallel::cuda_plugin();
  std::string ignored;
  const int devices = plugin.device_count(ignored);
  if (index < 0 || index >= devices) {
    throw UserError("CUDA: device " + std::to_string(index) + " of " + std::to_string(devices) +
                    ": start no more processes on a host than it has devices");
  }
  const auto table =
      reinterpret_cast<cuda::KernelsFunction*>(parallel::cuda_plugin_symbol(cuda::kKernelsSymbol));
  use_kernels(plugin.type, table());
  use_graphs(plugin.type, plugin.record);
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  at::globalContext().setAllowFP16ReductionCuBLAS(false);
  if (deterministic) {
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // cuBLAS asks for it
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
  const at::Device device(plugin.type, static_cast<c10::DeviceIndex>(index));
  c10::impl::VirtualGuardImpl(plugin.type).setDevice(device);
  return device;
}

int compute_capability(at::Device device) {
  return device.is_cpu() ? 0 : parallel::cuda_plugin().compute_capability(device.index());
}

void use_own_stream(at::Device device) {
  const c10::impl::VirtualGuardImpl there(device.type());
  there.synchronizeDevice(device.index());
  there.exchangeStream(there.getStreamFromGlobalPool(device));
}

at::Tensor sent_to(at::Device device, const at::Tensor& host) {
  if (device == host.device()) return host;
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

const cuda::Kernels* kernels_for(const at::Tensor& x) {
  const cuda::Kernels* found = kernels[static_cast<size_t>(x.device().type())];
  TEMPER_CHECK(found != nullptr || x.is_cpu(), "no kernels for tensors on " + x.device().str());
  return found;
}

cuda::Element element_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return cuda::Element::kFloat32;
  if (dtype == at::kBFloat16) return cuda::Element::kBfloat16;
  TEMPER_CHECK(dtype == at::kHalf, std::string("no device kernels for ") + c10::toString(dtype));
  return cuda::Element::kFloat16;
}

void add_at_rows(at::Tensor to, const at::Tensor& ids, const at::Tensor& rows) {
  c10::List<std::optional<at::Tensor>> where;
  where.push_back(ids);
  to.index_put_(where, rows, /*accumulate=*/true);  // sorts the ids; index_add_ would use atomics
}

const float* table_on(at::Device device, std::span<const float> table) {
  return static_cast<const float*>(
      copy_on(device, table.data(), static_cast<int64_t>(table.size_bytes())));
}
const uint8_t* table_on(at::Device device, std::span<const uint8_t> table) {
  return static_cast<const uint8_t*>(
      copy_on(device, table.data(), static_cast<int64_t>(table.size_bytes())));
}

CUstream_st* stream_of(const at::Tensor& x) {
  if (x.is_cpu()) return nullptr;
  const c10::impl::VirtualGuardImpl device(x.device().type());
  return static_cast<CUstream_st*>(device.getStreamNativeHandle(device.getStream(x.device())));
}

void check_launch(int error) {
  if (error == 0) return;
  throw RunError("CUDA: a kernel could not be started, error " + std::to_string(error) +
                 " (cuda_runtime_api.h, cudaError); CUDA_LAUNCH_BLOCKING=1 shows which one failed");
}

}  // namespace temper::trainer
