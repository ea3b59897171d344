// What Temper reaches on the GPU it runs on, with random weights drawn there.
//
//   gpu_bench --what kernels  [--shape tiny]
//   gpu_bench --what step     [--shape 1b|8b|124m|tiny] [--method full|lora|qlora] [--tokens N]
//                             [--rows N]
//                             [--checkpointing none|full|selective] [--optimizer adamw|adamw_8bit]
//                             [--float8 none|tensorwise|rowwise] [--graphs no|yes] [--steps N]
//   gpu_bench --what generate [--shape ...] [--samples N] [--tokens N] [--tokenizer DIRECTORY]
//
// The last line has the figures. MFU by both formulas in use: 6 N + 12 L H T a token (PaLM's,
// attention not halved) and 6 N + 6 L H T (of a causal model); with adapters 4 N. The peak is this
// GPU's own: the rate of an 8192^3 product.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "data/loader/batch.h"
#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "recipes/recipe.h"
#include "tests/bench/arguments.h"
#include "tests/bench/synthetic_batch.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/adapters/adapters.h"
#include "trainer/generation/engine.h"
#include "trainer/models/decoder_names.h"
#include "trainer/models/model.h"
#include "trainer/ops/device.h"
#include "trainer/ops/float8.h"
#include "trainer/ops/gelu.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/head_terms.h"
#include "trainer/ops/layer_norm.h"
#include "trainer/ops/rms_norm.h"
#include "trainer/ops/rope.h"
#include "trainer/ops/swiglu.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/recorded_passes.h"

namespace {

using namespace temper;
using namespace temper::trainer;

// CUDA's first, or the one that TEMPER_PLUGIN has in its place: there this program is tested.
at::Device device() {
  static const at::Device first = use_cuda(0);
  return first;
}
at::TensorOptions bf16() { return at::TensorOptions(device()).dtype(at::kBFloat16); }

void synchronize() { c10::impl::VirtualGuardImpl(device().type()).synchronizeDevice(0); }

// Median seconds of `repetitions` calls after two that warm up; each call is waited for.
double seconds_of(int repetitions, const std::function<void()>& call) {
  std::vector<double> seconds;
  for (int i = -2; i < repetitions; ++i) {
    synchronize();
    const auto start = std::chrono::steady_clock::now();
    call();
    synchronize();
    if (i >= 0) {
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  return seconds[static_cast<size_t>(repetitions / 2)];
}

double peak_gib() {
  const auto stats = at::getDeviceAllocator(device().type())->getDeviceStats(0);
  return static_cast<double>(stats.allocated_bytes[0].peak) / (1 << 30);
}

double product_rate(bool tiny) {
  const int64_t size = tiny ? 64 : 8192;
  const at::Tensor a = at::randn({size, size}, bf16()), b = at::randn({size, size}, bf16());
  at::Tensor c = at::empty({size, size}, bf16());
  return 2 * std::pow(static_cast<double>(size), 3) / seconds_of(9, [&] { at::mm_out(c, a, b); });
}

constexpr const char* kTiny = "tiny";  // nothing is measured with it: a test of this program

ModelConfig shape_named(const std::string& name) {
  ModelConfig config;
  if (name == "1b") {
    config = llama_of({.vocabulary = 128256,
                       .hidden = 2048,
                       .mlp = 8192,
                       .layers = 16,
                       .heads = 32,
                       .kv_heads = 8,
                       .context = 131072});
    config.tie_word_embeddings = true;
  } else if (name == "8b") {
    config = llama_of({.vocabulary = 128256,
                       .hidden = 4096,
                       .mlp = 14336,
                       .layers = 32,
                       .heads = 32,
                       .kv_heads = 8,
                       .context = 131072});
  } else if (name == "124m") {  // GPT-2
    config = gpt2_of({.vocabulary = 50257,
                      .hidden = 768,
                      .mlp = 3072,
                      .layers = 12,
                      .heads = 12,
                      .context = 1024});
  } else if (name == kTiny) {
    config = llama_of({.vocabulary = 512,
                       .hidden = 128,
                       .mlp = 256,
                       .layers = 2,
                       .heads = 4,
                       .kv_heads = 2,
                       .context = 256});
  } else {
    throw UserError("gpu_bench: --shape '" + name + "': 1b, 8b, 124m or tiny");
  }
  config.rope.theta = 500000;
  return config;
}

void draw(Model& model) {
  const at::AutoGradMode off(false);
  for (Parameter& parameter : model.parameters()) {
    const std::string module = parameter.name.substr(0, parameter.name.rfind('.'));
    if (is_norm(module, model.config())) {
      parameter.value.fill_(parameter.name.ends_with(".bias") ? 0 : 1);
    } else {
      parameter.value.normal_(0, 0.02);
    }
    if (!parameter.master.is_same(parameter.value)) parameter.master.copy_(parameter.value);
  }
  for (const LinearSlot& slot : model.linears()) {
    if (slot.projection->quantized.empty()) continue;
    QuantizedMatrix& m = slot.projection->quantized[slot.part];
    const int64_t elements = m.rows * m.columns, blocks = (elements + 63) / 64;
    const auto bytes = at::TensorOptions(device()).dtype(at::kByte);
    m.codes = at::randint(256, {(elements + 1) / 2, 1}, bytes);
    m.absmax_codes = at::randint(256, {blocks}, bytes);
    m.nested_absmax = at::full({(blocks + 255) / 256}, 0.01, bytes.dtype(at::kFloat));
    m.offset = 0.04F;
  }
}

struct Prepared {
  ModelConfig config;
  std::unique_ptr<Model> model;
  std::unique_ptr<Adapters> adapters;
};

Prepared prepare(std::map<std::string, std::string>& given) {
  Prepared p{.config = shape_named(given["--shape"]), .model = {}, .adapters = {}};
  const std::string method = given["--method"], checkpointing = given["--checkpointing"];
  ModelOptions options{.compute = at::kBFloat16,
                       .weights = at::kBFloat16,
                       .activation_checkpointing = checkpointing == "full"        ? 1
                                                   : checkpointing == "selective" ? 2
                                                                                  : 0,
                       .frozen = method != "full",
                       .device = device()};
  if (method == "qlora") options.quantize = QuantKind::kNf4;
  if (given["--float8"] == "tensorwise") options.float8 = Float8Scaling::kTensorwise;
  if (given["--float8"] == "rowwise") options.float8 = Float8Scaling::kRowwise;
  p.model = build_model(p.config, options);
  draw(*p.model);
  if (method != "full") {
    recipes::Recipe recipe;
    recipe.peft.method = "lora";
    recipe.peft.r = 16;
    recipe.peft.lora_alpha = 32;
    recipe.peft.target_modules = "all-linear";
    recipes::fill_in_peft(recipe);
    p.adapters = std::make_unique<Adapters>(recipe.peft, *p.model, options);
    p.adapters->initialize(1);
  }
  return p;
}

void measure_step(std::map<std::string, std::string>& given) {
  const double peak = product_rate(given["--shape"] == kTiny);
  Prepared p = prepare(given);
  recipes::Optimizer settings;
  settings.kind = given["--optimizer"];
  settings.lr = 1e-5;
  const auto optimizer = build_optimizer(settings, p.model->parameters());
  const int64_t rows = std::stol(given["--rows"]), length = std::stol(given["--tokens"]);
  const data::Batch batch = synthetic_batch(rows, length, p.config.vocab_size);
  const auto tokens = static_cast<double>(rows * length);
  double loss = 0;
  const auto pass = [&](const data::Batch& of) {
    const HeadTerms head = head_cross_entropy_terms(p.model->hidden(of), p.model->head(), of.labels,
                                                    TokenLoss::kNll);
    head.sum.backward();
    return LossTerms{.sum = head.sum.detach(), .count = tokens, .metrics = {}};
  };
  RecordedPasses passes(device(), length);
  const bool recorded = given["--graphs"] == "yes";
  if (recorded) {
    use_own_stream(device());
    passes.record({.micro_batches = {batch}}, pass);
  }
  const double seconds = seconds_of(std::stoi(given["--steps"]), [&] {
    std::vector<at::Tensor> gradients;
    for (Parameter& parameter : p.model->parameters()) {
      if (parameter.value.grad().defined()) parameter.value.mutable_grad().zero_();
    }
    const LossTerms terms = recorded ? passes.run(batch, pass) : pass(batch);
    loss = terms.sum.item<double>() / tokens;
    for (const Parameter& parameter : p.model->parameters()) {
      if (parameter.trainable()) gradients.push_back(parameter.value.grad());
    }
    const double norm = global_norm(gradients) / tokens;
    optimizer->step(1e-5, clip_factor(norm, 1.0) / tokens);
  });
  const bool frozen = given["--method"] != "full";
  const double palm = training_flops_per_token(p.config, static_cast<double>(length), frozen);
  const double causal =
      training_flops_per_token(p.config, static_cast<double>(length + 1) / 2, frozen);
  std::printf(
      "temper %s %s %s, float8 %s, graphs %s: %.3f s, %.0f tokens/s, MFU %.3f (6N+12LHT) %.3f (6N+6LHT) of %.0f "
      "TFLOP/s, loss %.4f, peak %.1f GiB\n",
      given["--shape"].c_str(), given["--method"].c_str(), given["--optimizer"].c_str(),
      given["--float8"].c_str(), given["--graphs"].c_str(), seconds, tokens / seconds, palm * tokens / seconds / peak, causal * tokens / seconds / peak,
      peak / 1e12, loss, peak_gib());
}

// What GRPO samples in a step: groups of eight completions, none of which ends early.
void measure_generation(std::map<std::string, std::string>& given) {
  Prepared p = prepare(given);
  const auto tokenizer = data::Tokenizer::load(given["--tokenizer"]);  // asked for no text
  const int64_t samples = std::stol(given["--samples"]), tokens = std::stol(given["--tokens"]);
  constexpr int64_t kGroup = 8, kPrompt = 64;
  std::vector<SampleRequest> requests;
  for (int64_t first = 0; first < samples; first += kGroup) {
    SampleRequest& request = requests.emplace_back();
    request.samples = std::min(kGroup, samples - first);
    request.seed = static_cast<uint64_t>(first);
    for (int64_t t = 0; t < kPrompt; ++t) {
      request.prompt.push_back(static_cast<int32_t>((1 + first * kPrompt + t) % p.config.vocab_size));
    }
  }
  const SamplingSettings settings{.temperature = 1, .max_new_tokens = tokens};
  EngineTimes times;
  const double seconds = seconds_of(1, [&] {
    times = {};
    sample(*p.model, tokenizer, requests, settings, {.slots = samples, .times = &times});
  });
  const auto all = static_cast<double>(samples * tokens);
  std::printf(
      "temper generate %s: %lld x %lld tokens in %.1f s, %.0f tokens/s (decoding alone "
      "%.0f), peak %.1f GiB\n",
      given["--shape"].c_str(), static_cast<long long>(samples), static_cast<long long>(tokens),
      seconds, all / seconds, all / times.decode_seconds, peak_gib());
}

// Casts of x [M, K], which read it twice and write half of it, and products with [K, K].
void measure_float8(const at::Tensor& x,
                    const std::function<void(const char*, double, double)>& line) {
  const auto n = static_cast<double>(x.numel());
  const at::Tensor w = at::randn({x.size(1), x.size(1)}, bf16());
  at::Tensor y = at::empty_like(x);
  const double flops = 2 * n * static_cast<double>(w.size(0));
  const double wide = flops / seconds_of(9, [&] { at::mm_out(y, x, w); });
  for (const auto scaling : {Float8Scaling::kTensorwise, Float8Scaling::kRowwise}) {
    const bool by_row = scaling == Float8Scaling::kRowwise;
    const auto cast = [&](const at::Tensor& from) {
      return to_float8(from, Float8Role::kValue, scaling);
    };
    line(by_row ? "float8, by row" : "float8", 2.5 * n, seconds_of(20, [&] { cast(x); }));
    line(by_row ? "by row, turned" : "float8, turned", 2.5 * n, seconds_of(20, [&] { cast(x.t()); }));
    const Float8Matrix a = cast(x), b = cast(w);
    for (const auto sums : {Float8Sums::kFast, Float8Sums::kPrecise}) {
      const double rate = flops / seconds_of(9, [&] { float8_product(y, a, b, sums); });
      std::printf("float8 product %s, %s sums: %.0f TFLOP/s, %.2f of bfloat16's\n",
                  by_row ? "by row" : "tensorwise", sums == Float8Sums::kFast ? "fast" : "precise",
                  rate / 1e12, rate / wide);
    }
  }
}

void measure_kernels(bool tiny) {
  // 1 GiB: the time of a launch and of a wait is nothing beside it.
  const int64_t rows = tiny ? 32 : 131072, dim = tiny ? 128 : 4096, head_dim = tiny ? 32 : 128;
  const auto element = static_cast<double>(c10::elementSize(at::kBFloat16));
  const at::Tensor x = at::randn({rows, dim}, bf16()), weight = at::ones({dim}, bf16());
  at::Tensor y = at::empty_like(x);
  const double copy =
      2 * element * static_cast<double>(x.numel()) / seconds_of(20, [&] { y.copy_(x); });
  std::printf("copy              %8.0f GB/s\n", copy / 1e9);
  const auto line = [&](const char* name, double elements, double seconds) {
    const double rate = elements * element / seconds;
    std::printf("%-17s %8.0f GB/s  %.2f of copy\n", name, rate / 1e9, rate / copy);
  };
  const auto n = static_cast<double>(x.numel());
  {
    const at::AutoGradMode off(false);
    line("rms_norm", 2 * n, seconds_of(20, [&] { rms_norm_again(x, weight, 1e-5); }));
    line("swiglu", 1.5 * n, seconds_of(20, [&] { swiglu_again(x); }));
    const at::Tensor angles = at::randn({rows, head_dim / 2}, bf16().dtype(at::kFloat));
    const double read = 2 * 2 * static_cast<double>(angles.numel());  // sines and cosines, in float32
    line("rope", 2 * n + read, seconds_of(20, [&] { rope(y, {angles, angles}, dim / head_dim, head_dim); }));
  }
  const at::Tensor leaf = x.detach().requires_grad_(true);
  const at::Tensor norm = weight.detach().requires_grad_(true);
  line("rms_norm, both", 5 * n, seconds_of(20, [&] {
         leaf.mutable_grad().reset();
         rms_norm(leaf, norm, 1e-5).second.backward(x);
       }));
  const at::Tensor half = at::randn({rows, dim / 2}, bf16());
  line("swiglu, both", 4 * n, seconds_of(20, [&] {
         leaf.mutable_grad().reset();
         swiglu(leaf).backward(half);
       }));
  {
    const at::AutoGradMode off(false);
    line("layer_norm", 2 * n, seconds_of(20, [&] { layer_norm_again(x, weight, weight, 1e-5); }));
    line("gelu", 2 * n, seconds_of(20, [&] { gelu_again(x, Gelu::kTanh); }));
  }
  if (compute_capability(device()) >= 89) measure_float8(x, line);
}

void measure_cross_entropy(bool tiny) {
  const int64_t tokens = tiny ? 16 : 8192, dim = tiny ? 128 : 4096, outputs = tiny ? 512 : 131072;
  const at::Tensor hidden = at::randn({tokens, dim}, bf16()).requires_grad_(true);
  const OutputHead head{.weight = (at::randn({outputs, dim}, bf16()) * 0.02).requires_grad_(true)};
  const at::Tensor labels = at::randint(outputs, {tokens}, at::kLong);
  const auto loss = [&] {
    hidden.mutable_grad().reset();
    head_cross_entropy_terms(hidden, head, labels, TokenLoss::kNll).sum.backward();
  };
  loss();
  at::getDeviceAllocator(device().type())->resetPeakStats(0);
  const auto before = at::getDeviceAllocator(device().type())->getDeviceStats(0).allocated_bytes[0];
  const double seconds = seconds_of(5, loss);
  const auto after = at::getDeviceAllocator(device().type())->getDeviceStats(0).allocated_bytes[0];
  std::printf("linear cross-entropy, %lld x %lld x %lld, both: %.1f ms, workspace %.0f MiB\n",
              static_cast<long long>(tokens), static_cast<long long>(dim),
              static_cast<long long>(outputs), seconds * 1e3,
              static_cast<double>(after.peak - before.current) / (1 << 20));
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was measured is there, whatever ends the rest
  auto given = arguments_of(count, arguments,
                            {{"--what", "step"},
                             {"--shape", "1b"},
                             {"--method", "full"},
                             {"--tokens", "4096"},
                             {"--rows", "1"},
                             {"--samples", "64"},
                             {"--tokenizer", "configs/quickstart"},
                             {"--checkpointing", "none"},
                             {"--optimizer", "adamw"},
                             {"--float8", "none"},
                             {"--graphs", "no"},
                             {"--steps", "5"}});
  try {
    device();
    if (given["--what"] == "kernels") {
      const bool tiny = given["--shape"] == kTiny;
      measure_cross_entropy(tiny);
      measure_kernels(tiny);
    } else if (given["--what"] == "generate") {
      measure_generation(given);
    } else {
      measure_step(given);
    }
    return 0;
  } catch (const std::exception& error) {
    const std::string what = error.what();
    std::fprintf(stderr, "gpu_bench: %s\n", what.substr(0, what.find('\n')).c_str());
    return 2;
  }
}
