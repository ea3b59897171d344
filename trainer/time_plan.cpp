#include "trainer/time_plan.h"

#include <algorithm>
#include <cmath>

#include "parallel/replicate/gradient_reducer.h"
#include "recipes/objective_kinds.h"
#include "trainer/adapters/adapters.h"
#include "trainer/memory_plan.h"
#include "trainer/ops/quantized.h"

namespace temper::trainer {

namespace {

bool has_adapters(const recipes::Recipe& recipe) {
  return !recipe.peft.method.empty() || !recipe.model.adapter.empty();
}

recipes::Peft peft_of(const recipes::Recipe& recipe) {
  return recipe.model.adapter.empty() ? recipe.peft : peft_of_directory(recipe.model.adapter);
}

// Legend: M rows, K and N the sides of a weight, D hidden size, F feed-forward size, Q and KV the
// features of all queries and of all keys.
class Predictor {
 public:
  Predictor(const recipes::Recipe& recipe, const StepWork& work, const DeviceRates& rates)
      : recipe_(recipe),
        work_(work),
        rate_(rates.of(recipe.train.precision)),
        copy_(rates.copy_bytes_per_second),
        element_(recipe.train.precision == recipes::Dtype::kFp32 ? 4 : 2),
        passes_(static_cast<double>(work.micro_batches)) {}

  // The products x W^T, or dy W, of all blocks, of all micro-batches.
  double block_products(const ModelConfig& c) const {
    double seconds = 0;
    each_weight(c, [&](double k, double n) { seconds += product(work_.tokens, k, n); });
    return layers(c) * seconds;
  }
  double block_weight_gradients(const ModelConfig& c) const {
    double seconds = 0;
    each_weight(c, [&](double k, double n) { seconds += weight_gradient(work_.tokens, k, n); });
    return layers(c) * seconds;
  }
  double head_product(const ModelConfig& c) const {
    return product(work_.supervised, hidden(c), outputs(c));
  }
  double head_weight_gradient(const ModelConfig& c) const {
    return weight_gradient(work_.supervised, hidden(c), outputs(c));
  }

  // y = x W^T + (x A^T) B^T: A and B are small, so x and dy are read twice each for them, and no
  // more.
  double low_rank() const {
    const auto trainable = static_cast<double>(work_.trainable);
    const recipes::Peft peft = peft_of(recipe_);
    const auto rank = static_cast<double>(peft.r.value_or(peft.init_r.value_or(1)));
    return std::max(6 * work_.tokens * trainable / rate_.products[0],
                    2 * element_ * work_.tokens * trainable / rank / copy_);
  }

  // 12 FLOPs a feature and pair of tokens forward and backward, of which forward has 4.
  double attention(const ModelConfig& c) const {
    double pairs = 0;
    for (const int64_t window : c.sliding_window) {
      pairs += work_.tokens * (window > 0 ? std::min(work_.attended, static_cast<double>(window))
                                          : work_.attended);
    }
    return 12 * queries(c) * pairs / rate_.attention;
  }

  // Of a block, elements that are read or written: two norms, the rotation in place, SwiGLU or
  // GELU, two residuals that products add.
  double block_forward(const ModelConfig& c) const {
    return moved(c, norms_and_activation(c) + rotated(c) + 2 * hidden(c));
  }
  // Norms read x, dy and the gradient of the residual and write one; SwiGLU reads gate, up and dz
  // and writes two, GELU reads its input and dz and writes one.
  double block_backward(const ModelConfig& c) const {
    return moved(c, 2 * 4 * hidden(c) + 1.5 * rotated(c) + (2 * mlp_inputs(c) + 1) * intermediate(c));
  }
  // What selective checkpointing makes again.
  double block_again(const ModelConfig& c) const { return moved(c, norms_and_activation(c)); }
  // Rows of the embedding, the last norm, and their gradients.
  double ends(const ModelConfig& c) const {
    return work_.tokens * element_ * 9 * hidden(c) / copy_;
  }

  double loss(const ModelConfig& c) const { return work_.supervised * outputs(c) / rate_.logits; }
  double loss_forward(const ModelConfig& c) const {
    return loss(c) * kLogitForwardBytes / logit_bytes(element_);
  }

  // A weight's codes are read and its values written.
  double quantization(const ModelConfig& c, double times) const {
    const std::string& kind = recipe_.model.quantize;
    if (kind == "none") return 0;
    double elements = 0;
    each_weight(c, [&](double k, double n) { elements += k * n; });
    return passes_ * times * layers(c) * elements * ((kind == "int8" ? 1 : 0.5) + element_) / copy_;
  }

  double optimizer(double shards) const {
    const recipes::Optimizer& o = recipe_.optimizer;
    const double states = o.kind.find("adamw") != std::string::npos ? 2 : o.momentum > 0 ? 1 : 0;
    const double state = o.kind.ends_with("adamw_8bit") ? 1 : 4;
    // Gradient, master and states are read, the latter written; the value where it is another
    // tensor.
    const double update = 4 + 2 * (4 + states * state) + (element_ < 4 ? element_ : 0);
    const double norm_and_zeros = 4 + 4;
    return static_cast<double>(work_.trainable) * (update + norm_and_zeros) / shards / copy_;
  }

  double element() const { return element_; }
  double passes() const { return passes_; }

 private:
  static double hidden(const ModelConfig& c) { return static_cast<double>(c.hidden_size); }
  static double intermediate(const ModelConfig& c) {
    return static_cast<double>(c.intermediate_size);
  }
  static double queries(const ModelConfig& c) {
    return static_cast<double>(c.num_attention_heads * c.head_dim);
  }
  static double keys(const ModelConfig& c) {
    return static_cast<double>(c.num_key_value_heads * c.head_dim);
  }
  static double layers(const ModelConfig& c) { return static_cast<double>(c.num_hidden_layers); }
  static double outputs(const ModelConfig& c) {
    return static_cast<double>(c.num_labels > 0 ? c.num_labels : c.vocab_size);
  }

  // Gate and up of SwiGLU; GELU has one.
  static double mlp_inputs(const ModelConfig& c) { return c.gelu ? 1 : 2; }

  template <class Visit>
  static void each_weight(const ModelConfig& c, const Visit& visit) {
    visit(hidden(c), queries(c) + 2 * keys(c));
    visit(queries(c), hidden(c));
    visit(hidden(c), mlp_inputs(c) * intermediate(c));
    visit(intermediate(c), hidden(c));
  }

  // M rows, of all micro-batches, times a weight that each of these reads.
  double product(double m, double k, double n) const {
    const double bytes = element_ * (m * (k + n) + passes_ * k * n);
    return std::max(2 * m * k * n / rate_of(rate_.products, k * n), bytes / copy_);
  }
  // Float32 sums are read and written.
  double weight_gradient(double m, double k, double n) const {
    const double bytes = element_ * m * (k + n) + passes_ * 2 * 4 * k * n;
    return std::max(2 * m * k * n / rate_of(rate_.weight_gradients, k * n), bytes / copy_);
  }

  static double norms_and_activation(const ModelConfig& c) {
    return 2 * 2 * hidden(c) + (mlp_inputs(c) + 1) * intermediate(c);
  }
  static double rotated(const ModelConfig& c) {
    if (c.learned_positions) return 0;
    return (c.qk_norm ? 2 : 1) * 2 * (queries(c) + keys(c));
  }
  double moved(const ModelConfig& c, double elements) const {
    return layers(c) * work_.tokens * element_ * elements / copy_;
  }

  const recipes::Recipe& recipe_;
  const StepWork& work_;
  const TypeRates& rate_;
  double copy_;
  double element_;
  double passes_;
};

// Seconds of exchanges between some of the ranks.
class Exchanges {
 public:
  explicit Exchanges(const LinkRates& link) : link_(link) {}

  double all_reduce(double bytes, int64_t ranks, double buckets) const {
    if (ranks == 1) return 0;
    const double steps =
        std::log2(static_cast<double>(ranks)) / std::log2(static_cast<double>(link_.ranks));
    return bytes / link_.all_reduce_bytes_per_second * part_sent(ranks) / part_sent(link_.ranks) +
           buckets * link_.latency_seconds * steps;
  }
  double reduce_scatter(double bytes, int64_t ranks,
                        double buckets) const {  // the first half of an all-reduce
    return all_reduce(bytes, ranks, buckets) / 2;
  }
  double all_gather(double bytes, int64_t ranks) const {
    if (ranks == 1) return 0;
    return bytes / link_.all_gather_bytes_per_second * part_sent(ranks) / part_sent(link_.ranks);
  }

 private:
  static double part_sent(int64_t ranks) {
    return static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  }

  const LinkRates& link_;
};

double bits_of_weight(const recipes::Recipe& recipe, double element) {
  const std::string& kind = recipe.model.quantize;
  return kind == "none" ? 8 * element : kind == "int8" ? 8 : 4;
}

// Not hidden by `backward`, seconds of a micro-batch, or `compute`, of the whole step.
double exposed_exchange(const recipes::Recipe& recipe, const ModelConfig& config,
                        const StepWork& work, const Exchanges& link, double element,
                        double backward, double compute) {
  const int64_t shards = recipe.parallel.shard, copies = work.ranks / shards;
  const int64_t zero = recipes::zero_stage(recipe.parallel);
  const double gradients = 4.0 * static_cast<double>(work.trainable);
  const double bucket = std::min(gradients, static_cast<double>(recipe.parallel.bucket_mib << 20));
  const double buckets = bucket > 0 ? std::ceil(gradients / bucket) : 0;
  const auto of_gradients = [&](double bytes, double count) {
    return shards == 1 ? link.all_reduce(bytes, copies, count)
                       : link.reduce_scatter(bytes, shards, count) +
                             link.all_reduce(bytes / static_cast<double>(shards), copies, count);
  };
  // Of a large embedding alone, which comes last, only the rows of tokens that any rank has.
  const auto hidden = static_cast<double>(config.hidden_size),
             rows = static_cast<double>(config.vocab_size);
  const bool embedding = shards == 1 && !has_adapters(recipe) && !config.tie_word_embeddings &&
                         config.vocab_size * config.hidden_size >= parallel::kLargeMatrix;
  const double touched = std::min(rows, work.tokens * static_cast<double>(work.ranks));
  const double last = embedding ? 4 * hidden * touched : bucket;
  const double all = gradients - (embedding ? 4 * hidden * (rows - touched) : 0);
  double exposed = std::max(of_gradients(last, 1), of_gradients(all, buckets) - backward);
  if (zero >= 2)
    exposed *= static_cast<double>(work.micro_batches);  // segments of each are added up
  if (zero == 1 || zero == 2) {
    exposed += link.all_gather(element * static_cast<double>(work.trainable), shards);
  } else if (zero == 3) {
    const double bytes =
        static_cast<double>(parameter_count(config)) * bits_of_weight(recipe, element) / 8;
    const double times =
        (recipe.parallel.reshard ? 2.0 : 1.0) * static_cast<double>(work.micro_batches);
    const double first = bytes / static_cast<double>(config.num_hidden_layers);
    exposed +=
        std::max(link.all_gather(first, shards), times * link.all_gather(bytes, shards) - compute);
  }
  return exposed;
}

}  // namespace

std::string not_predicted(const recipes::Recipe& recipe) {
  const recipes::Objective& objective = recipe.objective;
  const recipes::ObjectiveKind* kind = recipes::find_objective_kind(objective.kind);
  if ((kind && kind->samples) || recipes::samples_completions(objective)) {
    return "objective.kind = \"" + objective.kind +
           "\" samples completions, which is not predicted";
  }
  if (objective.kind == "kto")
    return "objective.kind = \"kto\" goes through completions of other prompts too, which is not "
           "predicted";
  if (has_adapters(recipe)) {
    const recipes::Peft peft = peft_of(recipe);
    if (peft.method != "lora" && peft.method != "adalora") {
      return "peft.method = \"" + peft.method + "\" is not predicted (lora and adalora are)";
    }
    if (peft.use_dora.value_or(false)) return "peft.use_dora = true is not predicted";
  }
  return "";
}

StepTime predict_step(const recipes::Recipe& recipe, const ModelConfig& config,
                      const StepWork& work, const DeviceRates& rates,
                      const std::optional<LinkRates>& link) {
  const Predictor p(recipe, work, rates);
  const bool adapters = has_adapters(recipe);
  // What is frozen by name has no gradients of its own.
  const double trained = adapters ? 0
                                  : std::min(1.0, static_cast<double>(work.trainable) /
                                                      static_cast<double>(parameter_count(config)));

  const double forward = p.block_products(config);
  const double gradients = p.block_products(config) + trained * p.block_weight_gradients(config);
  const double head_gradients = p.head_product(config) + trained * p.head_weight_gradient(config);
  StepTime time;
  time.products =
      forward + gradients + p.head_product(config) + head_gradients + (adapters ? p.low_rank() : 0);
  time.attention = p.attention(config);
  time.elementwise = p.block_forward(config) + p.block_backward(config) + p.ends(config);
  time.loss = p.loss(config);

  using recipes::ActivationCheckpointing;
  const auto mode = recipe.train.activation_checkpointing;
  if (mode == ActivationCheckpointing::kFull) {
    time.recomputation = forward + p.attention(config) / 3 + p.block_forward(config) +
                         (adapters ? p.low_rank() / 3 : 0);
  } else if (mode == ActivationCheckpointing::kSelective) {
    time.recomputation = p.block_again(config);
  }
  // The gradient of these is known after all logits (ops/token_log_probs.h).
  if (const std::string& kind = recipe.objective.kind;
      kind == "dpo" || kind == "orpo" || kind == "cpo") {
    time.recomputation += p.head_product(config) + p.loss_forward(config);
  }
  time.quantization = p.quantization(config, mode == ActivationCheckpointing::kFull ? 3 : 2);

  if (work.second_model) {
    const ModelConfig& other = *work.second_model;
    time.second_model = p.block_products(other) + p.head_product(other) + p.attention(other) / 3 +
                        p.block_forward(other) + p.loss_forward(other) + p.quantization(other, 1);
  }
  time.optimizer = p.optimizer(static_cast<double>(recipe.parallel.shard));

  if (link && work.ranks > 1) {
    const double backward =
        gradients + time.attention * 2 / 3 + p.block_backward(config) + time.recomputation;
    const double compute = time.products + time.attention + time.elementwise + time.recomputation;
    time.exchange = exposed_exchange(recipe, config, work, Exchanges(*link), p.element(),
                                     backward / p.passes(), compute);
  }
  return time;
}

data::Json to_json(const StepTime& time) {
  return {{"products", time.products},
          {"attention", time.attention},
          {"elementwise", time.elementwise},
          {"loss", time.loss},
          {"recomputation", time.recomputation},
          {"quantization", time.quantization},
          {"second_model", time.second_model},
          {"optimizer", time.optimizer},
          {"exchange", time.exchange}};
}

}  // namespace temper::trainer
