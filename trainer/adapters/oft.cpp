#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/rotation.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

int64_t block_size_of(const recipes::Peft& peft, const LinearSite& site) {
  const int64_t blocks = peft.r.value(), size = peft.oft_block_size.value();
  if ((blocks != 0) == (size != 0)) {
    throw UserError("peft.r = " + std::to_string(blocks) +
                    ", peft.oft_block_size = " + std::to_string(size) +
                    ": give the number of blocks or their size and set the other to 0");
  }
  const int64_t wanted = blocks != 0 ? blocks : size;
  if (site.in_features % wanted != 0) {
    throw UserError(std::string(blocks != 0 ? "peft.r" : "peft.oft_block_size") + " = " +
                    std::to_string(wanted) + ": must divide the " +
                    std::to_string(site.in_features) + " input features of '" + site.module +
                    "': " + divisors_near(site.in_features, wanted));
  }
  return blocks != 0 ? site.in_features / blocks : size;
}

class Oft final : public LinearAdapter {
 public:
  Oft(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : size_(block_size_of(peft, site)),
        constrained_(peft.coft.value()),
        eps_(peft.eps.value()),
        terms_(peft.use_cayley_neumann.value() ? peft.num_cayley_neumann_terms.value() : 0),
        exact_(!peft.use_cayley_neumann.value()),
        zero_(std::get<bool>(peft.init_weights.value())) {
    const int64_t blocks = peft.block_share.value() ? 1 : site.in_features / size_;
    angles_ =
        tensors.add(site, "oft_R.weight", {blocks, size_ * (size_ - 1) / 2}, Precision::kFloat32);
    upper_ = at::triu_indices(size_, size_, 1);
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    if (!context.enabled) return base_output(base, x);
    if (constrained_) constrain();
    const at::Tensor blocks = rotation(angles_.value).to(x.scalar_type());
    return base_output(base, rotate_blocks(x, blocks));
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    if (zero_)
      fill_master(angles_, 0);
    else
      draw_normal(angles_, 0, 0.1, seed, "oft_R.weight");
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    if (constrained_) constrain();
    // As one matrix, zeros and all: the order of its sums is PEFT's.
    const at::Tensor blocks = rotation(angles_.master).expand({weight.size(1) / size_, -1, -1});
    weight.copy_(at::mm(at::block_diag(blocks.unbind()), weight.t()).t());
  }

 private:
  // [K, S (S - 1) / 2] -> [K, S, S]: above the diagonal row by row, negated below.
  at::Tensor skew(const at::Tensor& angles) const {
    c10::List<std::optional<at::Tensor>> places;
    places.push_back(std::nullopt);
    for (const at::Tensor& side : {upper_[0], upper_[1]})
      places.push_back(sent_to(angles.device(), side));
    const at::Tensor half =
        at::zeros({angles.size(0), size_, size_}, angles.options()).index_put(places, angles);
    return at::sub(half, half.transpose(1, 2));
  }

  at::Tensor rotation(const at::Tensor& angles) const {
    const at::Tensor q = skew(angles);
    if (exact_) return cayley(q);
    // I + 2 Q + 2 Q^2 + ... + 2 Q^(t - 2) + Q^(t - 1) for t = 4 terms and more; 3 give what 4 give.
    at::Tensor sum = at::eye(size_, q.options()).expand_as(q);
    if (terms_ < 2) return sum;
    sum = at::add(sum, q, 2);
    if (terms_ == 2) return sum;
    at::Tensor power = at::bmm(q, q);
    sum = at::add(sum, power, 2);
    for (int64_t term = 3; term < terms_ - 1; ++term) {
      power = at::bmm(power, q);
      sum = at::add(sum, power, 2);
    }
    return at::add(sum, at::bmm(power, q));
  }

  // COFT: blocks outside a ball of radius eps / sqrt(K) are put back on it, in the weights
  // themselves and before they are used.
  void constrain() const {
    const at::NoGradGuard no_grad;
    const double radius = eps_ / std::sqrt(static_cast<double>(angles_.value.size(0)));
    const auto project = [&](at::Tensor angles) {
      // Each angle stands twice in its block.
      const at::Tensor norm = at::linalg_vector_norm(skew(angles), 2, {1, 2});
      // What was put back may round to a hair outside: once is enough, in every pass alike.
      const at::Tensor outside = at::gt(norm, radius * (1 + 1e-6)).unsqueeze(1);
      if (outside.any().item<bool>())
        angles.copy_(at::where(
            outside, at::mul(angles, at::mul(norm.reciprocal(), radius).unsqueeze(1)), angles));
    };
    project(angles_.master);
    if (!angles_.value.is_same(angles_.master)) project(angles_.value);
  }

  int64_t size_;
  bool constrained_;
  double eps_;
  int64_t terms_;
  bool exact_;
  bool zero_;
  Parameter angles_;
  at::Tensor upper_;  // rows and columns above the diagonal, int64 [2, S (S - 1) / 2]
};

}  // namespace

std::unique_ptr<LinearAdapter> build_oft(const recipes::Peft& peft, const LinearSite& site,
                                         AdapterTensors& tensors) {
  return std::make_unique<Oft>(peft, site, tensors);
}

}  // namespace temper::trainer
