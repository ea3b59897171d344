// Linear adapter methods other than LoRA against peft: goldens of make_adapters.py.
//
// Tolerance: 1e-6 of the largest expected element. Both sides compute in float32 with sums of up to
// 20 products (an error of a few 6e-8), in another order. The gradient of OFT's angles, each the
// difference of two such sums through powers of a matrix: 2e-6.
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "tests/trainer/adapters/plain_layer.h"
#include "trainer/adapters/adalora.h"
#include "trainer/checkpoint/safetensors.h"

namespace temper::trainer {
namespace {

constexpr double kTolerance = 1e-6;

SafetensorsFile golden_of(const std::string& name) {
  return SafetensorsFile(golden_files("adapters") / (name + ".safetensors"));
}

template <class T>
void read(const data::Json& settings, const char* key, std::optional<T>& field) {
  if (settings.contains(key)) field = settings.at(key).get<T>();
}

recipes::Peft peft_of(const SafetensorsFile& golden) {
  const data::Json settings = data::Json::parse(golden.metadata().at("settings"));
  std::string method = settings.at("peft_type");
  std::transform(method.begin(), method.end(), method.begin(), ::tolower);
  recipes::Peft peft = resolved(method);
  if (settings.contains("feedforward_modules"))
    peft.feedforward_modules = settings.at("feedforward_modules").get<std::vector<std::string>>();
  read(settings, "r", peft.r);
  read(settings, "alpha", peft.alpha);
  read(settings, "decompose_both", peft.decompose_both);
  read(settings, "decompose_factor", peft.decompose_factor);
  read(settings, "projection_prng_key", peft.projection_prng_key);
  read(settings, "save_projection", peft.save_projection);
  read(settings, "oft_block_size", peft.oft_block_size);
  read(settings, "coft", peft.coft);
  read(settings, "eps", peft.eps);
  read(settings, "block_share", peft.block_share);
  read(settings, "use_cayley_neumann", peft.use_cayley_neumann);
  read(settings, "num_cayley_neumann_terms", peft.num_cayley_neumann_terms);
  read(settings, "boft_block_size", peft.boft_block_size);
  read(settings, "boft_block_num", peft.boft_block_num);
  read(settings, "boft_n_butterfly_factor", peft.boft_n_butterfly_factor);
  read(settings, "init_r", peft.init_r);
  read(settings, "target_r", peft.target_r);
  read(settings, "lora_alpha", peft.lora_alpha);
  read(settings, "tinit", peft.tinit);
  read(settings, "tfinal", peft.tfinal);
  read(settings, "deltaT", peft.deltaT);
  read(settings, "total_step", peft.total_step);
  read(settings, "orth_reg_weight", peft.orth_reg_weight);
  return peft;
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, const std::string& what,
                 double tolerance = kTolerance) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  const double error = (found.detach() - expected).abs().max().item<double>();
  EXPECT_LE(error, tolerance * expected.abs().max().item<double>()) << what;
}

class AdapterParity : public testing::TestWithParam<const char*> {
 protected:
  AdapterParity() : golden_(golden_of(GetParam())), peft_(peft_of(golden_)) {
    for (const std::string& name : golden_.names()) {
      if (!name.ends_with("/weight")) continue;
      const std::string module = name.substr(0, name.find('/'));
      const std::vector<int64_t> shape = golden_.shape(name);
      const LinearSite site{.module = module,
                            .in_features = shape[1],
                            .out_features = shape[0]};
      adapters_[module] = kBuilders.at(peft_.method)(peft_, site, tensors_);
    }
  }

  at::Tensor tensor(const std::string& name) const {
    return golden_.contains(name) ? golden_.tensor(name).clone() : at::Tensor();
  }

  SafetensorsFile golden_;
  recipes::Peft peft_;
  ModelOptions options_;
  std::vector<Parameter> parameters_;
  AdapterTensors tensors_{options_, at::kFloat, parameters_};
  std::map<std::string, std::unique_ptr<LinearAdapter>> adapters_;
};

TEST_P(AdapterParity, NamesShapesOutputGradientsAndMergeEqualPeft) {
  std::set<std::string> expected_names, names;
  for (const std::string& name : golden_.names())
    if (name.starts_with("base_model.")) expected_names.insert(name);
  for (const Parameter& parameter : parameters_) {
    names.insert(parameter.name);
    const at::Tensor saved = tensor(parameter.name);
    if (!saved.defined()) continue;
    ASSERT_EQ(parameter.value.sizes(), saved.sizes()) << parameter.name;
    if (parameter.trainable())
      parameter.value.data().copy_(saved);
    else  // VeRA's projections come from a seed
      EXPECT_TRUE(at::equal(parameter.value, saved)) << parameter.name;
  }
  EXPECT_EQ(names, expected_names);

  for (const auto& [module, adapter] : adapters_) {
    const at::Tensor weight = tensor(module + "/weight"), bias = tensor(module + "/bias");
    const at::Tensor x = tensor(module + "/x").requires_grad_();
    const at::Tensor y = adapter->forward(x, base_linear(weight, bias), AdapterContext{});
    expect_near(y, tensor(module + "/y"), module + " y");
    y.backward(tensor(module + "/dy"));
    expect_near(x.grad(), tensor(module + "/dx"), module + " dx");

    at::Tensor merged_weight = weight, merged_bias = bias;
    adapter->merge(merged_weight, merged_bias, at::kFloat);
    expect_near(merged_weight, tensor(module + "/merged_weight"), module + " merged weight");
    if (bias.defined())
      expect_near(merged_bias, tensor(module + "/merged_bias"), module + " merged bias");
  }
  for (const Parameter& parameter : parameters_)
    if (parameter.trainable())
      expect_near(parameter.value.grad(), tensor("grad/" + parameter.name), parameter.name,
                  peft_.method == "oft" ? 2 * kTolerance : kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Peft, AdapterParity,
                         testing::Values("ia3", "ia3_feedforward", "loha", "loha_wide", "lokr",
                                         "lokr_whole", "lokr_both", "lokr_factor", "vera",
                                         "vera_unsaved", "oft", "oft_count", "oft_terms",
                                         "oft_exact", "oft_shared", "oft_constrained", "boft",
                                         "boft_count", "boft_butterfly", "adalora"));

// Built from the narrowest layer to the widest and in between, the projections end as PEFT's, which
// looks for the widest first.
TEST(VeraParity, SharedProjectionsEqualPeftToTheBit) {
  const SafetensorsFile golden = golden_of("vera_projection");
  ModelOptions options;
  std::vector<Parameter> parameters;
  AdapterTensors tensors(options, at::kFloat, parameters);
  const recipes::Peft peft = peft_of(golden);
  const auto k =
      build_vera(peft, {.module = "k_proj", .in_features = 8, .out_features = 4}, tensors);
  const auto gate =
      build_vera(peft, {.module = "gate_proj", .in_features = 8, .out_features = 20}, tensors);
  const auto down =
      build_vera(peft, {.module = "down_proj", .in_features = 20, .out_features = 8}, tensors);
  int checked = 0;
  for (const Parameter& parameter : parameters) {
    if (parameter.trainable()) continue;
    EXPECT_TRUE(at::equal(parameter.value, golden.tensor(parameter.name))) << parameter.name;
    ++checked;
  }
  EXPECT_EQ(checked, 2);
}

// The layers of the two goldens of AdaLoRA's allocator, named as there.
std::vector<Parameter> adalora_parameters(const SafetensorsFile& golden,
                                          const std::string& prefix) {
  std::vector<Parameter> parameters;
  for (const std::string& name : golden.names()) {
    if (!name.starts_with(prefix + "base_model.")) continue;
    Parameter& parameter = parameters.emplace_back();
    parameter.name = name.substr(prefix.size());
    parameter.value = golden.tensor(name).clone();
    if (!prefix.empty()) parameter.value = parameter.value[0].clone();
    parameter.value.requires_grad_();
    parameter.value.mutable_grad() = at::zeros_like(parameter.value.detach());
    parameter.master = parameter.value;
  }
  return parameters;
}

TEST(AdaLoraParity, LivingRanksEqualPeftAtEveryStep) {
  const SafetensorsFile golden = golden_of("adalora_budget");
  const std::vector<Parameter> parameters = adalora_parameters(golden, "before/");
  ASSERT_EQ(parameters.size(), 6u);
  const recipes::Peft peft = peft_of(golden);
  RankAllocator allocator(peft, parameters);
  int64_t alive = 0;
  for (int64_t step = 1; step <= *peft.total_step; ++step) {
    for (const Parameter& parameter : parameters) {
      parameter.value.data().copy_(golden.tensor("before/" + parameter.name)[step - 1]);
      // Sums over 4 tokens, which the optimizer's factor makes a mean again.
      parameter.value.mutable_grad().copy_(golden.tensor("grad/" + parameter.name)[step - 1] * 4);
    }
    allocator.step(step, 0.25);
    alive = 0;
    for (const Parameter& parameter : parameters) {
      if (!parameter.name.ends_with("lora_E")) continue;
      const at::Tensor expected = golden.tensor("after/" + parameter.name)[step - 1];
      EXPECT_TRUE(at::equal(parameter.value, expected)) << parameter.name << " step " << step;
      alive += parameter.value.count_nonzero().item<int64_t>();
    }
  }
  EXPECT_EQ(alive, 2 * *peft.target_r);
}

TEST(AdaLoraParity, OrthogonalityAndItsGradientEqualPeft) {
  const SafetensorsFile golden = golden_of("adalora_orthogonality");
  const std::vector<Parameter> parameters = adalora_parameters(golden, "");
  RankAllocator allocator(peft_of(golden), parameters);
  const double loss = allocator.regularize(1);
  EXPECT_NEAR(loss, golden.tensor("loss").item<double>(), kTolerance * loss);
  for (const Parameter& parameter : parameters)
    if (!parameter.name.ends_with("lora_E"))
      expect_near(parameter.value.grad(), golden.tensor("grad/" + parameter.name), parameter.name);
}

}  // namespace
}  // namespace temper::trainer
