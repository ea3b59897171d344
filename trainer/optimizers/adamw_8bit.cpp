#include "trainer/optimizers/adamw_8bit.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/checkpoint/piece.h"
#include "trainer/ops/blockwise.h"
#include "trainer/ops/device.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/optimizers/paged.h"
#include "trainer/optimizers/update.h"

namespace temper::trainer {

namespace {

constexpr int64_t kSmallest8Bit = 4096;  // elements; below, float32 moments cost nothing
constexpr int64_t kSmallestPaged = 100000;  // elements; as in bitsandbytes
static_assert(kBlockElements % kBlock8 == 0, "a thread's share is whole blocks of moments");

int64_t blocks_of(int64_t elements) { return (elements + kBlock8 - 1) / kBlock8; }

// A piece begins with a block, so its blocks are a piece of the whole's.
std::string name_of_blocks(const std::string& parameter) {
  std::optional<Piece> piece = piece_of(parameter);
  if (!piece) return parameter;
  TEMPER_CHECK(piece->begin % kBlock8 == 0, parameter + ": cuts a block of moments");
  return Piece{.whole = piece->whole,
               .begin = piece->begin / kBlock8,
               .end = blocks_of(piece->end),
               .shape = {blocks_of(piece->elements())}}
      .name();
}

class AdamW8bit : public Optimizer {
 public:
  AdamW8bit(const recipes::Optimizer& options, const std::vector<Parameter>& parameters)
      : options_(options), parameters_(trainable(parameters)) {
    for (const Parameter& parameter : parameters_) {
      exp_avg_.push_back(zero_moment(options, parameter, true));
      exp_avg_sq_.push_back(zero_moment(options, parameter, false));
    }
  }

  void step(double lr, double gradient_scale) override {
    ++updates;
    std::vector<AdamWStep> steps;
    for (const Parameter& parameter : parameters_) {
      steps.push_back(adamw_step(options_, parameter, updates, lr, gradient_scale));
    }
    const std::vector<UpdateTarget> targets = update_targets(parameters_);
    if (!parameters_.empty() && kernels_for(parameters_.front().master)) {
      for (size_t i = 0; i < targets.size(); ++i) device_step(i, targets[i], steps[i]);
      return;
    }
    update_blocks(parameters_, targets, [&](size_t i, int64_t begin, int64_t count) {
      for (int64_t at = begin; at < begin + count; at += kBlock8) {
        const int64_t n = std::min(kBlock8, begin + count - at);
        std::array<float, kBlock8> m;
        std::array<float, kBlock8> v;
        exp_avg_[i].read(at, n, m.data());
        exp_avg_sq_[i].read(at, n, v.data());
        adamw_fused_update(targets[i].weight + at, m.data(), v.data(), targets[i].gradient + at, n,
                           steps[i]);
        exp_avg_[i].write(at, n, m.data());
        exp_avg_sq_[i].write(at, n, v.data());
      }
    });
  }

  std::vector<std::pair<std::string, at::Tensor>> state() override {
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const std::string& name = parameters_[i].name;
      named.emplace_back("exp_avg/" + name, exp_avg_[i].values);
      named.emplace_back("exp_avg_sq/" + name, exp_avg_sq_[i].values);
      if (!exp_avg_[i].absmax.defined()) continue;
      const std::string blocks = name_of_blocks(name);
      named.emplace_back("exp_avg_absmax/" + blocks, exp_avg_[i].absmax);
      named.emplace_back("exp_avg_sq_absmax/" + blocks, exp_avg_sq_[i].absmax);
    }
    return named;
  }

 private:
  struct Moment {
    at::Tensor values;  // uint8 codes, or float32
    at::Tensor absmax;  // float32, one a block; undefined for float32 values
    bool with_sign = false;
    bool paged = false;  // values

    void read(int64_t begin, int64_t n, float* x) const {
      if (absmax.defined()) {
        dequantize_block(dynamic_code(with_sign), values.const_data_ptr<uint8_t>() + begin, n,
                         absmax.const_data_ptr<float>()[begin / kBlock8], x);
      } else {
        std::copy_n(values.const_data_ptr<float>() + begin, n, x);
      }
    }
    void write(int64_t begin, int64_t n, const float* x) const {
      if (absmax.defined()) {
        absmax.mutable_data_ptr<float>()[begin / kBlock8] = quantize_block(
            dynamic_code(with_sign), x, n, values.mutable_data_ptr<uint8_t>() + begin);
      } else {
        std::copy_n(x, n, values.mutable_data_ptr<float>() + begin);
      }
    }
  };

  static Moment zero_moment(const recipes::Optimizer& settings, const Parameter& parameter,
                            bool with_sign) {
    const int64_t count = parameter.master.numel();
    const std::optional<Piece> piece = piece_of(parameter.name);
    if ((piece ? piece->elements() : count) < kSmallest8Bit) return {zeros_like_master(parameter), at::Tensor(), with_sign};
    const auto options = parameter.master.options();
    const bool paged = settings.kind == "paged_adamw_8bit" && count >= kSmallestPaged;
    const auto zeros = [&] {
      const at::IntArrayRef sizes = parameter.master.sizes();
      const at::TensorOptions codes = options.dtype(at::kByte);
      return paged ? paged_zeros(sizes, codes) : at::zeros(sizes, codes);
    };
    return {zeros(), at::zeros({blocks_of(count)}, options), with_sign, paged};
  }

  void device_step(size_t i, const UpdateTarget& target, const AdamWStep& step) {
    if (target.gradient == nullptr) return;
    const at::Tensor& master = parameters_[i].master;
    const cuda::Kernels& device = *kernels_for(master);
    const Moment &m = exp_avg_[i], &v = exp_avg_sq_[i];
    const cuda::ValueView value{.data = target.value,
                                .compute = element_of(target.compute),
                                .weights = element_of(parameters_[i].dtype)};
    if (!m.absmax.defined()) {
      launch(master, device.adamw,
             cuda::AdamWView{.weight = target.weight,
                             .exp_avg = m.values.mutable_data_ptr<float>(),
                             .exp_avg_sq = v.values.mutable_data_ptr<float>(),
                             .gradient = target.gradient,
                             .value = value,
                             .count = master.numel(),
                             .fused = true},
             step);
      return;
    }
    for (const Moment* moment : {&m, &v}) {
      if (moment->paged) prefetch(moment->values);
    }
    const auto values = [&](bool with_sign) {
      return table_on(master.device(), std::span<const float>(dynamic_code(with_sign).values));
    };
    const auto nearest = [&](bool with_sign) {
      return table_on(master.device(), std::span<const uint8_t>(dynamic_code(with_sign).nearest));
    };
    launch(master, device.adamw_8bit,
           cuda::AdamW8bitView{.weight = target.weight,
                               .gradient = target.gradient,
                               .m_codes = m.values.mutable_data_ptr<uint8_t>(),
                               .v_codes = v.values.mutable_data_ptr<uint8_t>(),
                               .m_absmax = m.absmax.mutable_data_ptr<float>(),
                               .v_absmax = v.absmax.mutable_data_ptr<float>(),
                               .signed_values = values(true),
                               .unsigned_values = values(false),
                               .signed_nearest = nearest(true),
                               .unsigned_nearest = nearest(false),
                               .value = value,
                               .count = master.numel()},
           step);
  }

  const recipes::Optimizer options_;
  const std::vector<Parameter> parameters_;
  std::vector<Moment> exp_avg_;
  std::vector<Moment> exp_avg_sq_;
};

}  // namespace

std::unique_ptr<Optimizer> build_adamw_8bit(const recipes::Optimizer& optimizer,
                                            const std::vector<Parameter>& parameters) {
  return std::make_unique<AdamW8bit>(optimizer, parameters);
}

}  // namespace temper::trainer
