#include "trainer/optimizers/offloaded.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "trainer/checkpoint/memory_layout.h"

namespace temper::trainer {

namespace {

// A parameter of the device, and the one that is updated in its place.
struct Twin {
  Parameter device, host;
  at::Tensor gradient{};       // what host.value.grad() is where the device has one
  bool master_travels = true;  // that of the device is what counts between steps

  bool own_master() const { return !device.master.is_same(device.value); }

  void lay_out(MemoryLayout& layout) {
    gradient = layout.next(device.value.sizes(), at::kFloat);
    host.value = layout.next(device.value.sizes(), device.value.scalar_type());
    if (!own_master()) {
      host.master = host.value;
    } else if (master_travels) {
      host.master = layout.next(device.value.sizes(), at::kFloat);
    }
  }

  void fetch() const {
    const at::Tensor& found = device.value.grad();
    host.value.mutable_grad() = found.defined() ? gradient : at::Tensor();
    if (!found.defined()) return;
    gradient.copy_(found.view(gradient.sizes()), /*non_blocking=*/true);
    if (master_travels) host.master.copy_(device.master, /*non_blocking=*/true);
  }

  void send() const {
    if (!host.value.grad().defined()) return;
    device.value.copy_(host.value, /*non_blocking=*/true);
    if (master_travels && own_master()) device.master.copy_(host.master, /*non_blocking=*/true);
  }
};

struct Group {
  std::vector<Twin> twins;
  std::unique_ptr<Optimizer> optimizer{};

  MemoryLayout lay_out(at::Tensor memory) {
    MemoryLayout layout(std::move(memory));
    for (Twin& twin : twins) twin.lay_out(layout);
    return layout;
  }
};

class Offloaded : public Optimizer {
 public:
  Offloaded(const recipes::Optimizer& options, std::vector<Parameter>& parameters,
            const OffloadOptions& offload) {
    const at::NoGradGuard off;
    form_groups(parameters, offload);
    if (groups_.empty()) return;
    device_ = groups_.front().twins.front().device.value.device();
    for (size_t slot = 0; slot < kSlots; ++slot) {
      int64_t bytes = 0;
      for (size_t i = slot; i < groups_.size(); i += kSlots) {
        bytes = std::max(bytes, groups_[i].lay_out({}).bytes());
      }
      const auto pinned = at::TensorOptions(at::kByte).pinned_memory(!device_.is_cpu());
      const at::Tensor memory = at::empty({bytes}, pinned);
      for (size_t i = slot; i < groups_.size(); i += kSlots) groups_[i].lay_out(memory);
    }
    for (Group& group : groups_) {
      std::vector<Parameter> hosts;
      for (Twin& twin : group.twins) {
        twin.host.value.requires_grad_(true);
        hosts.push_back(twin.host);
      }
      group.optimizer = build_optimizer(options, hosts);
    }
  }

  void step(double lr, double gradient_scale) override {
    const at::NoGradGuard off;
    if (!groups_.empty()) fetch(0);
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (i + 1 < groups_.size()) fetch(i + 1);
      // What the group before in this slot has sent was ahead of these gradients: the slot is free.
      if (!device_.is_cpu()) come_[i % kSlots]->synchronize();
      groups_[i].optimizer->updates = updates;
      groups_[i].optimizer->step(lr, gradient_scale);
      for (const Twin& twin : groups_[i].twins) twin.send();
    }
    ++updates;
  }

  std::vector<std::pair<std::string, at::Tensor>> state() override {
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (const Group& group : groups_) {
      for (auto& state : group.optimizer->state()) named.push_back(std::move(state));
    }
    return named;
  }

 private:
  static constexpr size_t kSlots = 2;  // one is computed on, the other one's gradients come

  void form_groups(std::vector<Parameter>& parameters, const OffloadOptions& offload) {
    int64_t elements = 0;
    for (Parameter& parameter : parameters) {
      if (!parameter.trainable()) continue;
      const bool moves = offload.masters && !parameter.master.is_same(parameter.value);
      if (moves) parameter.master = parameter.master.cpu();
      const int64_t count = parameter.value.numel();
      if (groups_.empty() || elements + count > offload.group_elements) {
        groups_.emplace_back();
        elements = 0;
      }
      elements += count;
      groups_.back().twins.push_back(
          {.device = parameter, .host = parameter, .master_travels = !moves});
    }
  }

  void fetch(size_t group) {
    for (const Twin& twin : groups_[group].twins) twin.fetch();
    if (device_.is_cpu()) return;  // copied by now
    const c10::impl::VirtualGuardImpl device(device_.type());
    auto& come = come_[group % kSlots];
    if (!come) come.emplace(device_.type());
    come->record(device.getStream(device_));
  }

  at::Device device_ = at::kCPU;
  std::vector<Group> groups_;
  std::array<std::optional<c10::Event>, kSlots> come_{};  // the slot's gradients
};

}  // namespace

std::unique_ptr<Optimizer> build_offloaded_optimizer(const recipes::Optimizer& optimizer,
                                                     std::vector<Parameter>& parameters,
                                                     const OffloadOptions& options) {
  return std::make_unique<Offloaded>(optimizer, parameters, options);
}

}  // namespace temper::trainer
