#include "trainer/adapters/parts.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

at::Generator layer_generator(uint64_t seed, std::string_view suffix) {
  return at::detail::createCPUGenerator(parallel::seed_of(static_cast<int64_t>(seed), suffix));
}

}  // namespace

at::Tensor base_output(const BaseLinear& base, const at::Tensor& x) {
  const at::Tensor y = base.product(x);
  return base.bias.defined() ? at::add(y, base.bias) : y;
}

void draw_normal(const Parameter& parameter, double mean, double std, uint64_t seed,
                 std::string_view suffix) {
  const at::NoGradGuard no_grad;
  at::Tensor drawn = at::empty(parameter.master.sizes(), at::kFloat);
  drawn.normal_(mean, std, layer_generator(seed, suffix));
  parameter.master.copy_(drawn);
}

void draw_kaiming(const Parameter& parameter, uint64_t seed, std::string_view suffix) {
  draw_uniform(parameter, 1 / std::sqrt(static_cast<double>(parameter.master.size(1))), seed,
               suffix);
}

void draw_uniform(const Parameter& parameter, double bound, uint64_t seed,
                  std::string_view suffix) {
  const at::NoGradGuard no_grad;
  at::Tensor drawn = at::empty(parameter.master.sizes(), at::kFloat);
  drawn.uniform_(-bound, bound, layer_generator(seed, suffix));
  parameter.master.copy_(drawn);
}

void fill_master(const Parameter& parameter, double value) {
  const at::NoGradGuard no_grad;
  at::Tensor(parameter.master).fill_(value);
}

at::Generator choices(const AdapterContext& context, const std::string& module,
                      std::string_view purpose) {
  return layer_generator(context.seed, std::string(purpose) + "/" + module);
}

bool sits_out(const AdapterContext& context, const std::string& module, double p) {
  if (!context.training || p == 0) return false;
  return at::rand({1}, choices(context, module, "module_dropout"), at::kFloat).item<double>() <= p;
}

void check_rank(const LinearSite& site, const char* key, int64_t rank) {
  const int64_t most = std::min(site.in_features, site.out_features);
  if (rank <= most) return;
  throw UserError(
      "peft." + std::string(key) + " = " + std::to_string(rank) + ": above the matrix of '" +
      site.module + "' (" + std::to_string(site.out_features) + " x " +
      std::to_string(site.in_features) + "): at most " + std::to_string(most) +
      " there (peft.rank_pattern sets one module's, peft.exclude_modules leaves it out)");
}

}  // namespace temper::trainer
