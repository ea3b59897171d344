#include "trainer/generation/engine.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/models/model.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {
namespace {

using Samples = std::vector<std::vector<Sampled>>;

std::filesystem::path source() {
  const char* directory = std::getenv("TEMPER_SOURCE_DIR");
  return directory != nullptr ? directory : ".";
}

std::filesystem::path stories() {
  const char* shared = std::getenv("TEMPER_SHARED");
  return (shared != nullptr ? std::filesystem::path(shared) : source() / "../shared") /
         "models/stories260K";
}

// Wide enough for several blocks of keys; weights that make some tokens much likelier than others.
ModelConfig tiny(int64_t window) {
  ModelConfig config =
      llama_of({.vocabulary = 4096, .hidden = 48, .mlp = 80, .context = 400});
  config.initializer_range = 0.2;
  config.sliding_window = {0, window};
  return config;
}

struct Policy {
  explicit Policy(at::ScalarType dtype = at::kFloat, int64_t window = 0) {
    options = {.compute = dtype, .weights = dtype};
    model = build_model(tiny(window), options);
    draw_weights(*model, options, 7);
  }
  ModelOptions options;
  std::unique_ptr<Model> model;
  data::Tokenizer tokenizer = data::Tokenizer::load(source() / "configs/quickstart");

  Samples sample(const std::vector<SampleRequest>& requests, const SamplingSettings& settings,
                 const EngineOptions& engine = {}) {
    return trainer::sample(*model, tokenizer, requests, settings, engine);
  }
};

std::vector<int32_t> ids_of(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kInt).contiguous();
  return {wide.data_ptr<int32_t>(), wide.data_ptr<int32_t>() + wide.numel()};
}

// Prompts of very different lengths.
std::vector<SampleRequest> requests_of(int64_t count, int64_t samples, int64_t vocabulary) {
  at::manual_seed(11);
  std::vector<SampleRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length = i == 1 ? 150 : 1 + 5 * i;
    requests.push_back({.prompt = ids_of(at::randint(vocabulary, {length}, at::kLong)),
                        .samples = samples,
                        .seed = static_cast<uint64_t>(100 + i)});
  }
  return requests;
}

// Log-probabilities that the training forward gives to all completions: their documents and others
// packed in one row.
std::vector<float> trained_log_probs(Model& model, const std::vector<SampleRequest>& requests,
                                     const Samples& samples, double temperature) {
  std::vector<int64_t> tokens, positions, where, labels;
  std::vector<int32_t> ends = {0};
  const auto add = [&](const std::vector<int32_t>& ids) {
    for (size_t i = 0; i < ids.size(); ++i) {
      tokens.push_back(ids[i]);
      positions.push_back(static_cast<int64_t>(i));
    }
    ends.push_back(static_cast<int32_t>(tokens.size()));
  };
  for (size_t r = 0; r < requests.size(); ++r) {
    for (const Sampled& sampled : samples[r]) {
      add({5, 6, 7});
      std::vector<int32_t> ids = requests[r].prompt;
      for (const int32_t id : sampled.ids) {
        where.push_back(static_cast<int64_t>(tokens.size() + ids.size()) - 1);
        labels.push_back(id);
        ids.push_back(id);
      }
      add(ids);
    }
  }
  const auto length = static_cast<int64_t>(tokens.size());
  data::Batch batch;
  batch.token_ids = at::tensor(tokens, at::kLong).view({1, length});
  batch.positions = at::tensor(positions, at::kLong).view({1, length});
  batch.document_ends = at::tensor(ends, at::kInt);
  const at::NoGradGuard off;
  const TokenLogProbs result =
      token_log_probs(model.hidden(batch), model.head(), at::tensor(where, at::kLong),
                      at::tensor(labels, at::kLong), {.temperature = temperature});
  const float* values = result.log_probs.const_data_ptr<float>();
  return {values, values + result.log_probs.numel()};
}

std::vector<float> sampled_log_probs(const Samples& samples) {
  std::vector<float> all;
  for (const auto& request : samples) {
    for (const Sampled& sampled : request)
      all.insert(all.end(), sampled.log_probs.begin(), sampled.log_probs.end());
  }
  return all;
}

void expect_same(const Samples& one, const Samples& other) {
  ASSERT_EQ(one.size(), other.size());
  for (size_t r = 0; r < one.size(); ++r) {
    ASSERT_EQ(one[r].size(), other[r].size());
    for (size_t s = 0; s < one[r].size(); ++s) {
      EXPECT_EQ(one[r][s].ids, other[r][s].ids) << r << " " << s;
      EXPECT_EQ(one[r][s].log_probs, other[r][s].log_probs) << r << " " << s;
      EXPECT_EQ(one[r][s].drawn_log_probs, other[r][s].drawn_log_probs) << r << " " << s;
      EXPECT_EQ(one[r][s].finish_reason, other[r][s].finish_reason) << r << " " << s;
    }
  }
}

struct Kind {
  const char* name;
  at::ScalarType dtype;
  int64_t window;
  double temperature;
};
class EveryKind : public testing::TestWithParam<Kind> {};

TEST_P(EveryKind, ExactLogProbabilitiesAreTheTrainingForwardsToTheBit) {
  const Kind& kind = GetParam();
  Policy policy(kind.dtype, kind.window);
  const auto requests = requests_of(8, 8, 4096);
  const Samples samples =
      policy.sample(requests, {.temperature = kind.temperature, .max_new_tokens = 150},
                    {.slots = 24, .exact = true});
  const std::vector<float> found = sampled_log_probs(samples);
  EXPECT_EQ(found.size(), 64U * 150U);
  EXPECT_EQ(found, trained_log_probs(*policy.model, requests, samples, kind.temperature));
}

TEST_P(EveryKind, FastLogProbabilitiesAreCloseToTheTrainingForwards) {
  const Kind& kind = GetParam();
  Policy policy(kind.dtype, kind.window);
  const auto requests = requests_of(5, 3, 4096);
  const Samples samples =
      policy.sample(requests, {.temperature = kind.temperature, .max_new_tokens = 60});
  const std::vector<float> found = sampled_log_probs(samples);
  const auto expected = trained_log_probs(*policy.model, requests, samples, kind.temperature);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-3) << i;
}

TEST_P(EveryKind, ExactResultsDoNotDependOnSlotsThreadsAndNeighbours) {
  const Kind& kind = GetParam();
  Policy policy(kind.dtype, kind.window);
  const auto requests = requests_of(4, 3, 4096);
  const SamplingSettings settings{
      .temperature = kind.temperature, .top_p = 0.9, .max_new_tokens = 20};
  const Samples all = policy.sample(requests, settings, {.slots = 64, .exact = true});
  expect_same(policy.sample(requests, settings, {.slots = 1, .exact = true}), all);
  expect_same(policy.sample(requests, settings, {.slots = 5, .exact = true}), all);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Samples alone = policy.sample({requests[2]}, settings, {.exact = true});
  at::set_num_threads(threads);
  expect_same(alone, {all[2]});
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind,
                         testing::Values(Kind{"Fp32", at::kFloat, 0, 1.0},
                                         Kind{"Bf16", at::kBFloat16, 0, 1.0},
                                         Kind{"Fp32Tempered", at::kFloat, 0, 0.7},
                                         Kind{"Fp32Window", at::kFloat, 40, 1.0},
                                         Kind{"Bf16Window", at::kBFloat16, 133, 1.3}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST(Engine, ExactLogProbabilitiesOfARealModelAreTheTrainingForwards) {
  if (!std::filesystem::exists(stories())) GTEST_SKIP() << "no " << stories();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const ModelOptions options{.compute = dtype, .weights = dtype};
    const auto model = build_model(load_config(stories()), options);
    load_weights(*model, options, stories());
    const auto tokenizer = data::Tokenizer::load(stories());
    std::vector<SampleRequest> requests;
    for (const char* text :
         {"Once upon a time", "The dog", "Lily and Tom went to the park.", "One"})
      requests.push_back({.prompt = tokenizer.encode(text), .samples = 16, .seed = 3});
    const Samples samples =
        sample(*model, tokenizer, requests,
               {.temperature = 1.0, .max_new_tokens = 120, .eos_ids = {*tokenizer.eos_id()}},
               {.exact = true});
    EXPECT_EQ(sampled_log_probs(samples), trained_log_probs(*model, requests, samples, 1.0));
  }
}

TEST(Engine, GreedyIsTheArgmaxOfTheTrainingForward) {
  Policy policy;
  const auto requests = requests_of(3, 1, 4096);
  const Samples samples = policy.sample(requests, {.max_new_tokens = 12}, {.exact = true});
  const at::NoGradGuard off;
  for (size_t r = 0; r < requests.size(); ++r) {
    std::vector<int32_t> ids = requests[r].prompt;
    for (const int32_t id : samples[r][0].ids) {
      const auto length = static_cast<int64_t>(ids.size());
      data::Batch batch;
      batch.token_ids = at::tensor(std::vector<int64_t>(ids.begin(), ids.end())).view({1, length});
      batch.positions = at::arange(length, at::kLong).view({1, length});
      batch.document_ends = at::tensor({int64_t{0}, length}, at::kInt);
      const at::Tensor last = policy.model->hidden(batch).select(1, -1);
      ASSERT_EQ(head_logits(last, policy.model->head()).argmax().item<int64_t>(), id);
      ids.push_back(id);
    }
    EXPECT_EQ(samples[r][0].drawn_log_probs, std::vector<float>(12, 0.0f));
  }
  EXPECT_EQ(sampled_log_probs(samples), trained_log_probs(*policy.model, requests, samples, 1.0));
}

// Embeddings in front of the prompt, or keys and values: either is a part of every sample.
TEST(Engine, SamplesHaveTheVirtualTokensInFront) {
  for (const bool prefix : {false, true}) {
    Policy policy;
    const auto requests = requests_of(3, 4, 4096);
    const SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 30};
    const Samples without = policy.sample(requests, settings, {.exact = true});
    at::manual_seed(2);
    const at::Tensor vectors = at::randn({5, prefix ? 2 * 2 * 2 * 12 : 48});
    auto front = std::make_shared<VirtualTokens>();
    *front = {.count = 5,
              .prefix = prefix,
              .vectors = [=] { return vectors; },
              .context = std::make_shared<AdapterContext>()};
    policy.model->virtual_tokens() = front;
    const Samples with = policy.sample(requests, settings, {.slots = 3, .exact = true});
    EXPECT_EQ(sampled_log_probs(with), trained_log_probs(*policy.model, requests, with, 1.0));
    EXPECT_NE(sampled_log_probs(with), sampled_log_probs(without));
  }
}

TEST(Engine, SamplesOfAPromptDifferAndAreThoseOfTheirSeed) {
  Policy policy;
  SampleRequest request{.prompt = {1, 2, 3}, .samples = 6, .seed = 9};
  const SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 20};
  const Samples six = policy.sample({request}, settings);
  std::set<std::vector<int32_t>> different;
  for (const Sampled& sampled : six[0]) different.insert(sampled.ids);
  EXPECT_EQ(different.size(), 6U);
  request.samples = 2;
  const Samples two = policy.sample({request}, settings, {.exact = true});
  expect_same(two, {{six[0][0], six[0][1]}});
  request.seed = 10;
  EXPECT_NE(policy.sample({request}, settings)[0][0].ids, six[0][0].ids);
}

TEST(Engine, ASampleEndsInAnEosAndKeepsIt) {
  Policy policy;
  const SampleRequest request{.prompt = {1, 2, 3}, .samples = 1, .seed = 9};
  const SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 20};
  const Sampled whole = policy.sample({request}, settings)[0][0];
  EXPECT_EQ(whole.finish_reason, "length");
  EXPECT_EQ(whole.ids.size(), 20U);
  SamplingSettings with_eos = settings;
  with_eos.eos_ids = {whole.ids[7]};
  const Sampled ended = policy.sample({request}, with_eos)[0][0];
  const auto first = std::find(whole.ids.begin(), whole.ids.end(), whole.ids[7]);
  EXPECT_EQ(ended.finish_reason, "eos");
  EXPECT_EQ(ended.ids, std::vector<int32_t>(whole.ids.begin(), first + 1));
  EXPECT_EQ(ended.log_probs.size(), ended.ids.size());
  const Completion completion = generate(*policy.model, policy.tokenizer, {1, 2, 3}, [&] {
    auto s = with_eos;
    s.seed = 9;
    return s;
  }());
  EXPECT_EQ(completion.ids, std::vector<int32_t>(whole.ids.begin(), first));
  EXPECT_EQ(completion.finish_reason, "eos");
}

TEST(Engine, TextEndsBeforeAStopString) {
  Policy policy;
  const SampleRequest request{.prompt = {1, 2, 3}, .samples = 2, .seed = 5};
  SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 40};
  std::map<int64_t, std::string> texts;
  const EngineOptions options{.on_text = [&](int64_t, int64_t sample, const std::string& piece) {
    texts[sample] += piece;
  }};
  policy.sample({request}, settings, options);
  const std::string whole = texts[1];
  ASSERT_GT(whole.size(), 30U);
  settings.stop = {whole.substr(20, 6)};
  texts.clear();
  const Samples stopped = policy.sample({request}, settings, options);
  EXPECT_EQ(stopped[0][1].finish_reason, "stop");
  EXPECT_LT(stopped[0][1].ids.size(), 40U);
  EXPECT_EQ(texts[1], whole.substr(0, whole.find(settings.stop[0])));
}

TEST(Engine, EverySampleIsReportedWhenItEnds) {
  Policy policy;
  const auto requests = requests_of(5, 3, 4096);
  SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 30};
  for (int32_t id = 0; id < 4096; id += 20) settings.eos_ids.push_back(id);
  std::set<std::pair<int64_t, int64_t>> seen;
  Samples reported(5, std::vector<Sampled>(3));
  const Samples samples = sample(*policy.model, policy.tokenizer, requests, settings, {.slots = 4},
                                 [&](int64_t request, int64_t s, const Sampled& sampled) {
                                   EXPECT_TRUE(seen.insert({request, s}).second);
                                   reported[request][s] = sampled;
                                 });
  EXPECT_EQ(seen.size(), 15U);
  expect_same(reported, samples);
}

TEST(Engine, CompletionsStayWithinTheModelsContext) {
  Policy policy;
  SampleRequest request{.prompt = std::vector<int32_t>(395, 3), .samples = 2, .seed = 5};
  const SamplingSettings settings{.temperature = 1.0, .max_new_tokens = 40};
  const Samples samples = policy.sample({request}, settings);
  EXPECT_EQ(samples[0][0].ids.size(), 5U);
  EXPECT_EQ(samples[0][1].finish_reason, "length");
  request.prompt.resize(400, 3);
  EXPECT_THROW(policy.sample({request}, settings), UserError);
  request.prompt.clear();
  EXPECT_THROW(policy.sample({request}, settings), UserError);
  request.prompt = {4096};
  EXPECT_THROW(policy.sample({request}, settings), UserError);
}

TEST(Engine, DrawnLogProbabilitiesAreThoseOfWhatIsLeftToDraw) {
  Policy policy;
  const std::vector<SampleRequest> request = {{.prompt = {1, 2, 3}, .samples = 3, .seed = 5}};
  const Samples plain = policy.sample(request, {.temperature = 0.8, .max_new_tokens = 10});
  const Samples top_k =
      policy.sample(request, {.temperature = 0.8, .top_k = 1, .max_new_tokens = 10});
  for (size_t s = 0; s < 3; ++s) {
    EXPECT_EQ(plain[0][s].drawn_log_probs, plain[0][s].log_probs);
    EXPECT_EQ(top_k[0][s].ids, top_k[0][0].ids);
    for (size_t i = 0; i < 10; ++i) {
      EXPECT_EQ(top_k[0][s].drawn_log_probs[i], 0.0f);
      EXPECT_LT(top_k[0][s].log_probs[i], 0.0f);
    }
  }
}

TEST(Engine, TheRepetitionPenaltySeesPromptAndCompletion) {
  Policy policy;
  const std::vector<SampleRequest> request = {{.prompt = {1, 2, 3}, .samples = 1, .seed = 5}};
  const Samples never_again =
      policy.sample(request, {.temperature = 0, .repetition_penalty = 1e9, .max_new_tokens = 60});
  std::set<int32_t> different(never_again[0][0].ids.begin(), never_again[0][0].ids.end());
  EXPECT_EQ(different.size(), 60U);
  for (const int32_t id : {1, 2, 3}) EXPECT_EQ(different.count(id), 0U);
}

}  // namespace
}  // namespace temper::trainer
