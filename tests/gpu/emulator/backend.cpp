// The emulated device to LibTorch: a device type of its own (PrivateUse1), whose operators are the
// CPU's on the same bytes. Whatever a real device refuses is refused: tensors of two devices in one
// operator, a CPU generator, a host that reads device memory (memory.h).
#include <algorithm>
#include <atomic>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include "tests/gpu/emulator/memory.h"
#include "tests/gpu/emulator/recording.h"
#include "tests/gpu/emulator/waits.h"

namespace temper::emulator {

namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr auto kKeys = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
constexpr c10::DeviceIndex kDevices = 4;  // of a host; all in one process's memory

thread_local c10::DeviceIndex current = 0;

std::atomic<int64_t> waited = 0;

// Operators whose result, or its size, the host must know to go on.
bool waits_for(const std::string& name) {
  constexpr const char* kAll[] = {
      "aten::_local_scalar_dense", "aten::equal",    "aten::is_nonzero",       "aten::nonzero",
      "aten::masked_select",       "aten::_unique2", "aten::repeat_interleave"};
  return std::find(std::begin(kAll), std::end(kAll), name) != std::end(kAll);
}

// The current device of a thread is another while one lives.
class OnDevice {
 public:
  explicit OnDevice(std::optional<c10::Device> device) {
    if (device && device->has_index()) current = device->index();
  }
  ~OnDevice() { current = before_; }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  c10::DeviceIndex before_ = current;
};

bool is_here(const at::Tensor& tensor) { return tensor.defined() && tensor.is_privateuseone(); }

// The same bytes as a tensor of the CPU. Only while the device works.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!is_here(tensor)) return tensor;
  return at::from_blob(
      tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(), [](void*) {},
      tensor.options().device(at::kCPU).requires_grad(false));
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const OnDevice there(device);
  return at::detail::empty_generic(sizes, &device_memory(), kKeys, c10::dtype_or_default(dtype),
                                   format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  const OnDevice there(device);
  return at::detail::empty_strided_generic(sizes, strides, &device_memory(), kKeys,
                                           c10::dtype_or_default(dtype));
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef sizes,
                         std::optional<at::MemoryFormat>) {
  c10::TensorImpl* const tensor = self.unsafeGetTensorImpl();
  tensor->set_sizes_contiguous(sizes);
  const c10::Storage& storage = self.storage();
  const size_t bytes = (self.storage_offset() + self.numel()) * self.element_size();
  if (storage.nbytes() < bytes) {
    const OnDevice there(self.device());
    storage.set_data_ptr_noswap(device_memory().allocate(bytes));
    storage.set_nbytes(bytes);
  }
  return self;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  const bool asks_host = self.is_cpu() || to.is_cpu();
  const bool goes_on = non_blocking && (self.is_cpu() ? self : to).is_pinned();
  // From pinned memory it could be, but would read what lies there when it is done again.
  if (asks_host) refuse_while_recording("a copy from or to the host");
  if (asks_host && !goes_on && self.numel() > 0) ++waited;
  const Working now;
  const auto copy = [target = on_host(to), source = on_host(self)] { target.copy_(source); };
  copy();
  if (!asks_host) record_step(copy);
  return to;
}

at::Tensor copied_to(const c10::Device& device, const at::Tensor& found) {
  if (!found.defined() || is_here(found)) return found;
  at::Tensor made =
      at::empty_strided(found.sizes(), found.strides(), found.options().device(device));
  const Working now;
  on_host(made).copy_(found);
  return made;
}

struct Call {
  const c10::OperatorHandle& op;
  std::optional<c10::Device> device{};  // of the tensors
  // Results that begin empty, here and as the CPU's.
  std::vector<std::pair<at::Tensor, at::Tensor>> grown{};

  // An operator's tensor as the CPU's operator takes it.
  at::Tensor given(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!is_here(tensor)) {
      TORCH_CHECK(tensor.dim() == 0, op.schema().operator_name(),
                  ": a tensor of the CPU among those of a device");
      return recording() ? tensor.clone() : tensor;  // a kernel takes the number itself
    }
    TORCH_CHECK(device.value_or(tensor.device()) == tensor.device(), op.schema().operator_name(),
                ": tensors of two devices");
    device = tensor.device();
    return on_host(tensor);
  }

  c10::IValue argument(const c10::IValue& value, size_t index) {
    if (value.isTensor()) {
      const at::Tensor tensor = given(value.toTensor());
      const auto* alias = op.schema().arguments()[index].alias_info();
      const bool is_written = alias != nullptr && alias->isWrite() && is_here(value.toTensor());
      if (!is_written || tensor.numel() > 0) return tensor;
      // The CPU's operator gives it its size.
      grown.emplace_back(value.toTensor(), at::empty({0}, tensor.options()));
      return grown.back().second;
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(given(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        // A mask becomes the places where it is true: as many as the host must know.
        if (tensor && is_here(*tensor) && tensor->scalar_type() == at::kBool) {
          refuse_while_recording("indexing by a mask");
          ++waited;
        }
        list.push_back(tensor ? std::optional(given(*tensor)) : std::nullopt);
      }
      return list;
    }
    if (value.isDevice()) return c10::Device(at::kCPU);
    TORCH_CHECK(!value.isGenerator(), op.schema().operator_name(),
                ": a generator of the CPU for tensors of a device");
    return value;
  }

  // What has been written in place is the argument itself.
  c10::IValue result(const c10::IValue& value, size_t index,
                     const std::vector<c10::IValue>& arguments) const {
    if (const auto* alias = op.schema().returns()[index].alias_info()) {
      TORCH_CHECK(alias->isWrite(), op.schema().operator_name(), ": a view, not emulated");
      for (size_t i = 0; i < arguments.size(); ++i) {
        const auto* other = op.schema().arguments()[i].alias_info();
        if (other != nullptr && other->beforeSet() == alias->beforeSet()) return arguments[i];
      }
    }
    if (value.isTensor()) return copied_to(*device, value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector())
      list.push_back(copied_to(*device, tensor));
    return list;
  }
};

// All tensors among them.
std::vector<at::Tensor> tensors_of(const torch::jit::Stack& values) {
  std::vector<at::Tensor> all;
  for (const c10::IValue& value : values) {
    if (value.isTensor()) all.push_back(value.toTensor());
    if (!value.isTensorList()) continue;
    for (const at::Tensor& tensor : value.toTensorVector()) all.push_back(tensor);
  }
  return all;
}

// As a device would: `given` and `results` are the bytes themselves and keep no tensor alive.
void do_again(const c10::OperatorHandle& op, torch::jit::Stack given,
              const std::vector<at::Tensor>& results) {
  op.callBoxed(&given);
  const std::vector<at::Tensor> found = tensors_of(given);
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].defined() && results[i].data_ptr() != found[i].data_ptr()) {
      results[i].copy_(found[i]);
    }
  }
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (waits_for(op.schema().name())) {
    refuse_while_recording(op.schema().name());
    ++waited;
  }
  Call call{op};
  const size_t inputs = op.schema().arguments().size(), outputs = op.schema().returns().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<std::ptrdiff_t>(inputs),
                                           stack->end());
  stack->resize(stack->size() - inputs);
  const Working now;
  for (size_t i = 0; i < inputs; ++i) stack->push_back(call.argument(arguments[i], i));
  const torch::jit::Stack given(stack->end() - static_cast<std::ptrdiff_t>(inputs), stack->end());
  op.callBoxed(stack);
  for (auto& [tensor, found] : call.grown) {
    tensor.resize_(found.sizes());
    on_host(tensor).copy_(found);
  }
  const size_t first = stack->size() - outputs;
  for (size_t i = 0; i < outputs; ++i) {
    (*stack)[first + i] = call.result((*stack)[first + i], i, arguments);
  }
  if (!recording()) return;
  std::vector<at::Tensor> results =
      tensors_of({stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end()});
  for (at::Tensor& result : results) result = on_host(result);
  record_step([op, given, results] { do_again(op, given, results); });
}

// Products of 16-bit factors in float32, which the CPU has no operator for.
at::Tensor& wide_mm(const at::Tensor& a, const at::Tensor& b, at::ScalarType type,
                    at::Tensor& out) {
  return out.copy_(at::mm(a.to(type), b.to(type)));
}
at::Tensor& wide_addmm(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                       at::ScalarType type, const at::Scalar& beta, const at::Scalar& alpha,
                       at::Tensor& out) {
  return out.copy_(at::addmm(c.to(type), a.to(type), b.to(type), beta, alpha));
}

// The CPU's would resize memory that is not its own.
at::Tensor& arange(const at::Scalar& start, const at::Scalar& end, const at::Scalar& step,
                   at::Tensor& out) {
  const at::Tensor numbers = at::arange(start, end, step, out.options().device(at::kCPU));
  out.resize_(numbers.sizes());
  const auto fill = [target = on_host(out), numbers] { target.copy_(numbers); };
  const Working now;
  fill();
  record_step(fill);
  return out;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kType;
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kType, std::exchange(current, device.index())};
  }
  c10::Device getDevice() const override { return {kType, current}; }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override { return stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return stream(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return stream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}

 private:
  static c10::Stream stream(c10::Device device) {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  void setCurrentDevice(c10::DeviceIndex device) const override { current = device; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device);
  }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory(); }
};

const bool registered = [] {
  c10::register_privateuse1_backend("emulated");
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  c10::SetAllocator(kType, &device_memory());
  return true;
}();

}  // namespace

int64_t waits() { return waited; }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("resize_", &resize);
  library.impl("as_strided", [](const at::Tensor& self, at::IntArrayRef sizes,
                                at::IntArrayRef strides, std::optional<int64_t> offset) {
    return at::native::as_strided_tensorimpl(self, sizes, strides, offset);
  });
  library.impl("unfold", &at::native::unfold);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("_copy_from", &copy_from);
  library.impl("arange.start_out", &arange);
  library.impl("mm.dtype_out", &wide_mm);
  library.impl("addmm.dtype_out", &wide_addmm);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

}  // namespace temper::emulator
