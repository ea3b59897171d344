#include "trainer/adapters/lora.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/eva.h"
#include "trainer/adapters/loftq.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"

namespace temper::trainer {

namespace {

std::string word_of(const recipes::BoolOrWord& init) {
  if (const bool* flag = std::get_if<bool>(&init)) return *flag ? "true" : "false";
  return std::get<std::string>(init);
}

at::Tensor normal(at::IntArrayRef shape, double deviation, at::Generator& generator) {
  return at::empty(shape, at::kFloat).normal_(0, deviation, generator);
}

// torch's default for a linear layer of this many inputs (Kaiming, a = sqrt 5).
void draw_uniform(const at::Tensor& tensor, int64_t inputs, at::Generator& generator) {
  const double bound = 1 / std::sqrt(static_cast<double>(inputs));
  tensor.copy_(at::empty(tensor.sizes(), at::kFloat).uniform_(-bound, bound, generator));
}

}  // namespace

bool starts_quantised(const recipes::Peft& peft) {
  return peft.method == "lora" && peft.init_lora_weights == recipes::BoolOrWord("loftq");
}

int64_t lora_rank(const recipes::Peft& peft, const LinearSite& site, bool from_file) {
  const int64_t rank = pattern_value(peft.rank_pattern, target_name(peft, site.module), peft.r.value());
  if (!from_file && !starts_in_data(peft)) check_rank(site, "r", rank);
  if (rank % 2 != 0 && word_of(peft.init_lora_weights.value()) == "orthogonal") {
    throw UserError("peft.r = " + std::to_string(rank) + ": must be even at '" + site.module +
                    "' with peft.init_lora_weights = \"orthogonal\", which gives A and B a half of "
                    "the rows each");
  }
  return rank;
}

double lora_scale(const recipes::Peft& peft, const std::string& module, int64_t rank) {
  const std::string name = target_name(peft, module);
  const auto whole =
      static_cast<double>(pattern_value(peft.alpha_pattern, name, peft.lora_alpha.value()));
  const double alpha = pattern_value(peft.alpha_fractions, name, whole);
  const auto r = static_cast<double>(rank);
  return alpha / (peft.use_rslora.value() ? std::sqrt(r) : r);
}

Lora::Lora(const recipes::Peft& peft, const LinearSite& site, int64_t rank,
           const at::Tensor& stacked_a, AdapterTensors& tensors)
    : peft_(peft), site_(site), rank_(rank) {
  scale_ = lora_scale(peft, site.module, rank);
  a_ = tensors.add("base_model.model." + site.module + ".lora_A.weight", stacked_a);
  b_ = tensors.add(site, "lora_B.weight", {site.out_features, rank});
  if (peft.lora_bias.value()) bias_ = tensors.add(site, "lora_B.bias", {site.out_features});
  if (peft.use_dora.value()) {
    magnitude_ =
        tensors.add(site, "lora_magnitude_vector", {site.out_features}, Precision::kFloat32);
  }
}

LowRankPart Lora::part(size_t index) const {
  return {.part = index,
          .module = site_.module,
          .a = a_.value,
          .b = b_.value,
          .bias = bias_.value,
          .scale = scale_};
}

at::Tensor Lora::forward(const at::Tensor& x, const BaseLinear& base,
                         const AdapterContext& context) const {
  if (!context.enabled) return base_output(base, x);
  const at::Tensor through = base.product(x);
  const at::Tensor dropped = adapter_dropout(x, peft_.lora_dropout.value(), site_.module, context);
  at::Tensor low_rank = at::matmul(at::matmul(dropped, a_.value.t()), b_.value.t()) * scale_;
  if (bias_.value.defined()) low_rank = low_rank + bias_.value * scale_;
  at::Tensor norm;
  {
    const at::NoGradGuard off;
    norm = at::linalg_vector_norm(base.weight().to(at::kFloat) + delta(), 2, 1);
  }
  const at::Tensor k = magnitude_.value / norm;
  // With dropout W x is scaled as a whole, but only what dropout lets through learns m (PEFT).
  const bool drops = context.training && peft_.lora_dropout.value() > 0;
  const at::Tensor scaled = drops ? through + (k - 1) * base.product(dropped) : k * through;
  const at::Tensor y = (scaled + k * low_rank).to(x.scalar_type());
  return base.bias.defined() ? y + base.bias : y;
}

at::Tensor Lora::delta() const {
  return at::mm(b_.master.detach(), a_.master.detach()).mul_(scale_);
}

void Lora::initialize_decomposed(const at::Tensor& weight, const std::string& how, uint64_t seed) {
  if (how == "olora") {
    const auto [q, r] = at::linalg_qr(weight);
    a_.master.copy_(r.narrow(0, 0, rank_));
    b_.master.copy_(q.narrow(1, 0, rank_));
    return;
  }
  at::Tensor u, s, vh;
  if (how == "pissa") {
    std::tie(u, s, vh) = at::linalg_svd(weight, /*full_matrices=*/false);
  } else {
    // pissa_niter_k: a randomised SVD (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4) with k
    // power iterations.
    const int64_t iterations = std::stoll(how.substr(std::string("pissa_niter_").size()));
    at::Generator generator = at::detail::createCPUGenerator(seed);
    at::Tensor q =
        std::get<0>(at::linalg_qr(at::mm(weight, normal({weight.size(1), rank_}, 1, generator))));
    for (int64_t i = 0; i < iterations; ++i) {
      const at::Tensor back = std::get<0>(at::linalg_qr(at::mm(weight.t(), q)));
      q = std::get<0>(at::linalg_qr(at::mm(weight, back)));
    }
    std::tie(u, s, vh) = at::linalg_svd(at::mm(q.t(), weight), /*full_matrices=*/false);
    u = at::mm(q, u);
  }
  const at::Tensor root = (s.narrow(0, 0, rank_) / scale_).sqrt();
  a_.master.copy_(root.unsqueeze(1) * vh.narrow(0, 0, rank_));
  b_.master.copy_(u.narrow(1, 0, rank_) * root);
}

at::Tensor Lora::initialize(const BaseWeight& weight, uint64_t seed) {
  const at::NoGradGuard off;
  const std::string how = word_of(peft_.init_lora_weights.value());
  at::Generator generator = at::detail::createCPUGenerator(seed);
  at::Tensor changed;
  if (how == "true" || how == "eva") {  // EVA's directions come from the data, afterwards
    draw_uniform(a_.master, site_.in_features, generator);
    b_.master.zero_();
  } else if (how == "false") {
    draw_uniform(a_.master, site_.in_features, generator);
    draw_uniform(b_.master, rank_, generator);
  } else if (how == "gaussian") {
    a_.master.copy_(normal(a_.master.sizes(), 1 / static_cast<double>(rank_), generator));
    b_.master.zero_();
  } else if (how == "orthogonal") {
    // A and B begin in complementary halves of one orthogonal matrix, so that B A is zero.
    const at::Tensor q = std::get<0>(at::linalg_qr(normal({rank_, rank_}, 1, generator)));
    const auto every_other = [&](int64_t first) { return q.slice(0, first, rank_, 2); };
    a_.master.copy_(
        at::mm(normal({site_.in_features, rank_ / 2}, 1, generator), every_other(0)).t() / 10);
    b_.master.copy_(at::mm(normal({site_.out_features, rank_ / 2}, 1, generator), every_other(1)) /
                    10);
  } else if (how == "loftq") {
    const at::Tensor whole = weight();
    const LoftqStart start =
        loftq_start(whole, rank_, *peft_.loftq_bits, *peft_.loftq_iter, site_.module);
    a_.master.copy_(start.a);
    b_.master.copy_(start.b);
    start_a_ = start.taken_a.to(a_.master.device());
    start_b_ = start.taken_b.to(b_.master.device());
    changed = changed_base(whole);
  } else {
    const at::Tensor whole = weight();
    initialize_decomposed(whole, how, seed);
    start_a_ = a_.master.clone();
    start_b_ = b_.master.clone();
    changed = changed_base(whole);
  }
  if (bias_.master.defined()) {
    if (how == "false") {
      draw_uniform(bias_.master, rank_, generator);
    } else {
      bias_.master.zero_();
    }
  }
  if (magnitude_.master.defined()) {
    magnitude_.master.copy_(
        at::linalg_vector_norm((changed.defined() ? changed : weight()) + delta().cpu(), 2, 1));
  }
  return changed;
}

at::Tensor Lora::changed_base(const at::Tensor& original) const {
  const at::Tensor a = start_a_.to(original.device()), b = start_b_.to(original.device());
  if (starts_quantised(peft_)) {
    return loftq_base(original, a, b, *peft_.loftq_bits, site_.module);
  }
  return original - at::mm(b, a).mul_(scale_);
}

void Lora::merge(at::Tensor& weight, at::Tensor& bias, at::ScalarType dtype) const {
  const at::NoGradGuard off;
  // PEFT rounds the sum once, but the difference too where the target is a parameter.
  const bool as_weight = target_name(peft_, site_.module) != site_.module;
  weight += as_weight ? delta().to(dtype).to(at::kFloat) : delta();
  if (magnitude_.master.defined()) {
    weight *= (magnitude_.master / at::linalg_vector_norm(weight, 2, 1)).unsqueeze(1);
  }
  if (!bias_.master.defined()) return;
  if (!bias.defined()) {
    throw UserError("peft.lora_bias: " + site_.module +
                    " has no bias of its own to merge the adapter's into: export without merging");
  }
  bias += bias_.master * scale_;
}

}  // namespace temper::trainer
