#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"

namespace temper::data {
struct Batch;
}

/// EVA (Paischer et al. 2024, arXiv:2410.07170), as PEFT 0.21.2 does it: the rows of A start as the
/// directions in which the inputs of their layer vary most in the training data, and the ranks of
/// all layers together go to the directions that explain most of their layer's variance.
namespace temper::trainer {

class Model;

/// init_lora_weights = "eva".
bool starts_in_data(const recipes::Peft& peft);

/// The next batch of the training data, which begins again when it is through: the same on every
/// rank.
using NextBatch = std::function<data::Batch()>;

struct EvaStart {
  recipes::Peft peft;  // target_modules, rank_pattern and alphas as the ranks came out
  std::map<std::string, at::Tensor> a;  // by module, [R, D] float32
  int64_t batches = 0;                  // how many it took
};

/// Feeds batches through the plain model (no adapters yet, targets set) until all directions that
/// are wanted stay where they are (cosine above peft.eva_tau). Inputs of padding never count, with
/// peft.eva_use_label_mask nor do those of tokens that are not supervised (batches without labels:
/// all count). Throws UserError for more directions than a layer has inputs, and where they do not
/// settle.
EvaStart find_eva_start(const recipes::Peft& peft, Model& model, const NextBatch& next_batch);

/// A layer that ranks are given to; those with the same input have the same `explained`.
struct EvaLayer {
  size_t input = 0;      // the first layer with its input
  at::Tensor explained;  // [C] shares of the variance of the input, descending
};

/// The rank of each layer, `budget` in all: to the largest shares; among layers with the same input
/// the first has the highest. Ties: to the layer that is the first with its input, then in order.
std::vector<int64_t> share_out_ranks(const std::vector<EvaLayer>& layers, int64_t budget);

}  // namespace temper::trainer
