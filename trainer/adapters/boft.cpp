#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/rotation.h"
#include "trainer/ops/device.h"
#include "trainer/ops/scale_features.h"

namespace temper::trainer {
namespace {

struct Blocks {
  int64_t count, size;
};

Blocks blocks_of(const recipes::Peft& peft, const LinearSite& site) {
  const int64_t size = peft.boft_block_size.value(), count = peft.boft_block_num.value();
  if ((size != 0) == (count != 0)) {
    throw UserError("peft.boft_block_size = " + std::to_string(size) + ", peft.boft_block_num = " +
                    std::to_string(count) + ": give one of them and set the other to 0");
  }
  const int64_t wanted = size != 0 ? size : count;
  const std::string key = size != 0 ? "peft.boft_block_size" : "peft.boft_block_num";
  if (site.in_features % wanted != 0) {
    throw UserError(key + " = " + std::to_string(wanted) + ": must divide the " +
                    std::to_string(site.in_features) + " input features of '" + site.module +
                    "': " + divisors_near(site.in_features, wanted));
  }
  const Blocks blocks =
      size != 0 ? Blocks{site.in_features / size, size} : Blocks{count, site.in_features / count};
  // Factor i mixes halves of blocks that are 2^i blocks apart.
  const int64_t levels = peft.boft_n_butterfly_factor.value() - 1;
  if (levels > 0 &&
      (blocks.size % 2 != 0 || levels > 62 || blocks.count % (int64_t{1} << levels) != 0)) {
    throw UserError("peft.boft_n_butterfly_factor = " + std::to_string(levels + 1) + ": '" +
                    site.module + "' has " + std::to_string(blocks.count) + " blocks of " +
                    std::to_string(blocks.size) +
                    ": needs blocks of an even size, and a number of them that 2^" +
                    std::to_string(levels) + " divides");
  }
  return blocks;
}

// Which feature stands at each place of butterfly factor `level` >= 1: groups of 2^level blocks are
// cut in half blocks, the even ones of which come first.
at::Tensor butterfly_order(int64_t features, int64_t block_size, int64_t level) {
  std::vector<int64_t> order;
  const int64_t half = block_size / 2, group = block_size << level;
  for (int64_t start = 0; start < features; start += group)
    for (const int64_t first : {start, start + half})
      for (int64_t piece = first; piece < start + group; piece += block_size)
        for (int64_t i = 0; i < half; ++i) order.push_back(piece + i);
  return at::tensor(order, at::kLong);
}

class Boft final : public LinearAdapter {
 public:
  Boft(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : module_(site.module),
        dropout_(peft.boft_dropout.value()),
        start_(std::get<bool>(peft.init_weights.value())) {
    const Blocks blocks = blocks_of(peft, site);
    const int64_t factors = peft.boft_n_butterfly_factor.value();
    r_ = tensors.add(site, "boft_R", {factors, blocks.count, blocks.size, blocks.size},
                     Precision::kFloat32);
    s_ = tensors.add(site, "boft_s", {site.out_features, 1}, Precision::kFloat32);
    for (int64_t level = 1; level < factors; ++level) {
      order_.push_back(butterfly_order(site.in_features, blocks.size, level));
      inverse_.push_back(at::argsort(order_.back()));
    }
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    if (!context.enabled) return base_output(base, x);
    at::Tensor blocks = rotations(r_.value);
    if (context.training && dropout_ > 0) blocks = identity_at(blocks, context);
    blocks = blocks.to(x.scalar_type());
    // x times the product of the factors, the last factor first.
    at::Tensor rotated = x;
    for (int64_t level = factors() - 1; level >= 0; --level)
      rotated = apply(rotated, blocks[level], level);
    const at::Tensor y = scale_features(base.product(rotated), s_.value);
    return base.bias.defined() ? at::add(y, base.bias) : y;
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    if (start_) {
      fill_master(r_, 0);
      fill_master(s_, 1);
    } else {
      draw_normal(r_, 0, 0.1, seed, "boft_R");
      draw_normal(s_, 1, 0.1, seed, "boft_s");
    }
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor blocks = rotations(r_.master);
    at::Tensor rotated = weight;
    for (int64_t level = 0; level < factors(); ++level)
      rotated = apply(rotated, blocks[level].transpose(1, 2), level);
    weight.copy_(at::mul(rotated, s_.master));
  }

 private:
  int64_t factors() const { return r_.value.size(0); }

  static at::Tensor rotations(const at::Tensor& r) {
    const at::Tensor flat = r.view({-1, r.size(2), r.size(3)});
    return cayley(at::mul(at::sub(flat, flat.transpose(1, 2)), 0.5)).view(r.sizes());
  }

  // x P diag(blocks) P^T of one factor; P is a choice of columns, none in the first factor.
  at::Tensor apply(const at::Tensor& x, const at::Tensor& blocks, int64_t level) const {
    if (level == 0) return rotate_blocks(x, blocks);
    const at::Tensor in = sent_to(x.device(), inverse_[level - 1]);
    const at::Tensor out = sent_to(x.device(), order_[level - 1]);
    return at::index_select(rotate_blocks(at::index_select(x, 1, in), blocks), 1, out);
  }

  // In one factor, chosen at random, a share of blocks stands still.
  at::Tensor identity_at(const at::Tensor& blocks, const AdapterContext& context) const {
    const int64_t count = blocks.size(1);
    const at::Generator generator = choices(context, module_, "boft_dropout");
    const int64_t level = at::randint(0, factors(), {1}, generator, at::kLong).item<int64_t>();
    const at::Tensor chosen =
        at::randperm(count, generator, at::kLong)
            .narrow(0, 0, static_cast<int64_t>(dropout_ * static_cast<double>(count)));
    at::Tensor still = at::zeros({factors(), count, 1, 1}, at::kBool);
    still[level].index_fill_(0, chosen, true);
    return at::where(sent_to(blocks.device(), still), at::eye(blocks.size(2), blocks.options()),
                     blocks);
  }

  std::string module_;
  double dropout_;
  bool start_;
  Parameter r_, s_;
  std::vector<at::Tensor> order_, inverse_;  // int64 [D], of factors 1 and up
};

}  // namespace

std::unique_ptr<LinearAdapter> build_boft(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors) {
  return std::make_unique<Boft>(peft, site, tensors);
}

}  // namespace temper::trainer
