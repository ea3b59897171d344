#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include "trainer/adapters/adapter.h"

/// What the methods share: the plain layer, draws of the start, choices of a forward pass.
namespace temper::trainer {

/// x W^T + b.
at::Tensor base_output(const BaseLinear& base, const at::Tensor& x);

/// Draws into the float32 master, from a generator of this layer's seed and the tensor's suffix:
/// the same on every rank, layout and device.
void draw_normal(const Parameter& parameter, double mean, double std, uint64_t seed,
                 std::string_view suffix);
void draw_uniform(const Parameter& parameter, double bound, uint64_t seed, std::string_view suffix);
/// torch.nn.init.kaiming_uniform_(a = sqrt(5)): U(-1/sqrt(fan), 1/sqrt(fan)), fan = columns.
void draw_kaiming(const Parameter& parameter, uint64_t seed, std::string_view suffix);
void fill_master(const Parameter& parameter, double value);

/// The numbers of one layer's choice in one forward pass: a function of context.seed, the module
/// and `purpose`, so that a forward pass done again in backward chooses alike.
at::Generator choices(const AdapterContext& context, const std::string& module,
                      std::string_view purpose);
/// True with probability p while training: the whole adapter sits out this pass.
bool sits_out(const AdapterContext& context, const std::string& module, double p);

/// Throws UserError when `rank` of `key` is above the matrix.
void check_rank(const LinearSite& site, const char* key, int64_t rank);

}  // namespace temper::trainer
