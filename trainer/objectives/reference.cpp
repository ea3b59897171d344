#include "trainer/objectives/reference.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/model.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {
namespace {

at::Tensor log_probs_of(Model& model, const data::Batch& batch, double temperature) {
  const at::NoGradGuard off;
  return token_log_probs(model.hidden(batch), model.head(), batch.targets.positions,
                         batch.targets.labels, {.temperature = temperature})
      .log_probs;
}

// Values that are exchanged for others while it lives.
class Exchanged {
 public:
  struct Place {
    at::Tensor value;  // of a parameter
    at::Tensor start;  // shown instead
  };
  explicit Exchanged(const std::vector<Place>& places) : places_(places) {
    for (const Place& place : places_) {
      trained_.push_back(place.value.detach().clone());
      place.value.detach().copy_(place.start);
    }
  }
  ~Exchanged() {
    for (size_t i = 0; i < places_.size(); ++i) places_[i].value.detach().copy_(trained_[i]);
  }
  Exchanged(const Exchanged&) = delete;
  Exchanged& operator=(const Exchanged&) = delete;

 private:
  const std::vector<Place>& places_;
  std::vector<at::Tensor> trained_;
};

class PolicyReference : public Reference {
 public:
  explicit PolicyReference(Model& model) : model_(model) {}
  at::Tensor log_probs(const data::Batch& batch, double temperature) override {
    return log_probs_of(model_, batch, temperature);
  }
  Model* model() override { return &model_; }

 private:
  Model& model_;
};

class StartReference : public Reference {
 public:
  StartReference(Model& model, Adapters& adapters, bool loaded)
      : model_(model), adapters_(adapters), switched_on_(loaded || changes_base(adapters.peft())) {
    // A residual init's start is part of checkpoints: the tensors themselves, not a copy.
    const NamedTensors kept = adapters.start();
    for (const Parameter& parameter : model.parameters()) {
      const bool of_adapter = parameter.name.starts_with("base_model.");
      if (!parameter.trainable() || (of_adapter && !switched_on_)) continue;
      const auto found = std::find_if(kept.begin(), kept.end(), [&](const auto& tensor) {
        return tensor.first == parameter.name;
      });
      places_.push_back({parameter.value, found != kept.end() ? found->second
                                                              : parameter.value.detach().clone()});
    }
  }

  at::Tensor log_probs(const data::Batch& batch, double temperature) override {
    AdapterContext& context = adapters_.context();
    const AdapterContext before = context;
    context.enabled = switched_on_;
    context.training = false;
    const Exchanged start(places_);
    at::Tensor log_probs = log_probs_of(model_, batch, temperature);
    context = before;
    return log_probs;
  }
  Model* model() override { return &model_; }

 private:
  Model& model_;
  Adapters& adapters_;
  const bool switched_on_;
  std::vector<Exchanged::Place> places_;
};

class ModelReference : public Reference {
 public:
  ModelReference(std::unique_ptr<Model> model, const std::optional<FollowOptions>& follow)
      : model_(std::move(model)), follow_(follow) {
    for (Parameter& parameter : model_->parameters()) parameter.value.set_requires_grad(false);
  }

  at::Tensor log_probs(const data::Batch& batch, double temperature) override {
    return log_probs_of(*model_, batch, temperature);
  }
  Model* model() override { return model_.get(); }

  void follow(Model& policy, int64_t step) override {
    if (!follow_ || step % follow_->every != 0) return;
    const at::NoGradGuard off;
    std::vector<Parameter>& own = model_->parameters();
    const std::vector<Parameter>& other = policy.parameters();
    TEMPER_CHECK(own.size() == other.size(), "a reference that follows is a copy of the policy");
    for (size_t i = 0; i < own.size(); ++i) {
      // parallel.offload keeps the policy's on the host.
      const at::Tensor theirs = other[i].master.to(own[i].master.device());
      own[i].master.mul_(1 - follow_->alpha).add_(theirs, follow_->alpha);
    }
    refresh_values(*model_);
  }

  NamedTensors state() override {
    NamedTensors tensors;
    if (!follow_) return tensors;
    for (const Parameter& parameter : model_->parameters()) {
      tensors.emplace_back(parameter.name, parameter.master);
    }
    return tensors;
  }

  void restored() override { refresh_values(*model_); }

 private:
  std::unique_ptr<Model> model_;
  std::optional<FollowOptions> follow_;
};

}  // namespace

std::unique_ptr<Reference> reference_by_policy(Model& model) {
  return std::make_unique<PolicyReference>(model);
}

std::unique_ptr<Reference> reference_by_start(Model& model, Adapters& adapters, bool loaded) {
  return std::make_unique<StartReference>(model, adapters, loaded);
}

std::unique_ptr<Reference> reference_by_model(std::unique_ptr<Model> model,
                                              const std::optional<FollowOptions>& follow) {
  return std::make_unique<ModelReference>(std::move(model), follow);
}

}  // namespace temper::trainer
