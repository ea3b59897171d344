#include <cmath>
#include <fstream>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/checkpoint/export.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/decoder_names.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

ModelConfig tiny(bool tied = false) {
  ModelConfig config = llama_of({.layers = 1, .heads = 2, .kv_heads = 1, .context = 32});
  config.tie_word_embeddings = tied;
  return config;
}

ModelConfig tiny_gpt2() { return gpt2_of({.layers = 2, .heads = 2, .context = 32}); }

// What a model directory holds: drawn weights under their names.
NamedTensors drawn(const ModelConfig& config) {
  const auto model = build_model(config, {});
  draw_weights(*model, {}, 7);
  NamedTensors tensors;
  for (const Parameter& p : model->parameters())
    tensors.emplace_back(p.name, p.master.detach().clone());
  return tensors;
}

at::Tensor& named(NamedTensors& tensors, const std::string& name) {
  for (auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  ADD_FAILURE() << "no " << name;
  return tensors.front().second;
}

std::vector<std::string> findings(const ModelConfig& config,
                                  const std::filesystem::path& directory) {
  const auto model = build_model(config, {});
  try {
    load_weights(*model, {}, directory);
  } catch (const UserError& error) {
    return error.lines();
  }
  return {};
}

bool ends_with_one_of(const std::vector<std::string>& lines, const std::string& part) {
  for (const std::string& line : lines) {
    if (line.find(part) != std::string::npos) return true;
  }
  return false;
}

TEST(Weights, AreTheSameBitsAfterWritingAndLoadingAlsoFromShards) {
  const Scratch directory;
  const NamedTensors tensors = drawn(tiny());
  const auto half = static_cast<std::ptrdiff_t>(tensors.size() / 2);
  write_safetensors(directory / "model-1.safetensors", {tensors.begin(), tensors.begin() + half});
  write_safetensors(directory / "model-2.safetensors", {tensors.begin() + half, tensors.end()});
  data::Json index;
  for (size_t i = 0; i < tensors.size(); ++i) {
    index["weight_map"][tensors[i].first] =
        i < tensors.size() / 2 ? "model-1.safetensors" : "model-2.safetensors";
  }
  std::ofstream(directory / "model.safetensors.index.json") << index.dump();

  const auto model = build_model(tiny(), {});
  load_weights(*model, {}, directory.path());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(model->parameters()[i].name, tensors[i].first);
    EXPECT_TRUE(model->parameters()[i].value.equal(tensors[i].second));
  }

  std::filesystem::remove(directory / "model-2.safetensors");
  const auto lines = findings(tiny(), directory.path());
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(
      lines[0].find("model-2.safetensors: is missing, but model.safetensors.index.json names it"),
      std::string::npos);
}

TEST(Weights, WhatFloat16CannotHoldIsRefused) {
  const Scratch directory;
  NamedTensors tensors = drawn(tiny());
  named(tensors, "lm_head.weight")[3][4] = 65519.0f;  // rounds to 65504
  write_safetensors(directory / "model.safetensors", tensors);
  const ModelOptions half{.compute = at::kHalf, .weights = at::kHalf};
  EXPECT_NO_THROW(load_weights(*build_model(tiny(), half), half, directory.path()));
  named(tensors, "lm_head.weight")[3][4] = -65520.0f;
  write_safetensors(directory / "model.safetensors", tensors);
  try {
    load_weights(*build_model(tiny(), half), half, directory.path());
    ADD_FAILURE() << "loaded";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("'lm_head.weight' has values above 65504, which fp16 cannot hold"),
              std::string::npos);
  }
  EXPECT_NO_THROW(load_weights(*build_model(tiny(), {}), {}, directory.path()));
}

TEST(Weights, AllThatIsWrongIsSaidAtOnce) {
  const Scratch directory;
  NamedTensors tensors = drawn(tiny());
  named(tensors, "model.norm.weight") = at::ones({17});
  named(tensors, "lm_head.weight")[3][4] = NAN;
  named(tensors, "model.embed_tokens.weight")[0][0] = INFINITY;
  tensors.emplace_back("model.layers.7.mlp.up_proj.weight", at::ones({2}));
  tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4}));
  std::erase_if(tensors, [](const auto& entry) {
    return entry.first == "model.layers.0.mlp.down_proj.weight";
  });
  write_safetensors(directory / "model.safetensors", tensors);
  const auto lines = findings(tiny(), directory.path());
  EXPECT_EQ(lines.size(), 5u);
  EXPECT_TRUE(ends_with_one_of(lines, "'model.norm.weight' is [17] but config.json wants [16]"));
  EXPECT_TRUE(ends_with_one_of(lines, "'lm_head.weight' holds NaN or infinite values"));
  EXPECT_TRUE(ends_with_one_of(lines, "'model.embed_tokens.weight' holds NaN or infinite values"));
  EXPECT_TRUE(ends_with_one_of(
      lines, "'model.layers.7.mlp.up_proj.weight' is not part of a LlamaForCausalLM"));
  EXPECT_TRUE(ends_with_one_of(lines, "'model.layers.0.mlp.down_proj.weight' is missing"));
}

TEST(Weights, ATiedModelMayBringItsHeadOrNot) {
  const Scratch directory;
  NamedTensors tensors = drawn(tiny(true));
  write_safetensors(directory / "model.safetensors", tensors);
  EXPECT_TRUE(findings(tiny(true), directory.path()).empty());
  tensors.emplace_back("lm_head.weight", tensors[0].second);
  write_safetensors(directory / "model.safetensors", tensors);
  EXPECT_TRUE(findings(tiny(true), directory.path()).empty());
}

TEST(Weights, LayersOfAQuantisedModelThatAreKeptInFullAreRefusedByTheFirst) {
  const Scratch directory;
  write_safetensors(directory / "model.safetensors", drawn(tiny()));
  const auto refusal = [&](const data::Json& names) -> std::string {
    ModelConfig config = tiny();
    config.json["quantization_config"]["llm_int8_skip_modules"] = names;
    const ModelOptions options{.frozen = true, .quantize = QuantKind::kNf4};
    const auto model = build_model(config, options);
    try {
      load_weights(*model, options, directory.path());
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  // What transformers itself writes: the head is in full here too.
  EXPECT_EQ(refusal({"lm_head"}), "");
  EXPECT_EQ(refusal(nullptr), "");
  EXPECT_EQ(refusal({"lm_head", "v_proj", "down_proj"}),
            (directory / "config.json").string() +
                ": quantization_config.llm_int8_skip_modules: \"v_proj\" keeps "
                "model.layers.0.self_attn.v_proj in full precision, and Temper quantises every "
                "linear layer of the blocks: use the original model");
}

TEST(Weights, PicklesAreRefused) {
  const Scratch directory;
  EXPECT_TRUE(
      ends_with_one_of(findings(tiny(), directory.path()), "has neither model.safetensors nor"));
  std::ofstream(directory / "pytorch_model.bin") << "x";
  EXPECT_TRUE(ends_with_one_of(findings(tiny(), directory.path()), "a pickle, which may run code"));
}

TEST(Weights, AnIndexMayNotLeadOutOfItsDirectory) {
  const Scratch directory;
  std::ofstream(directory / "model.safetensors.index.json")
      << R"({"weight_map": {"lm_head.weight": "../model.safetensors"}})";
  EXPECT_TRUE(
      ends_with_one_of(findings(tiny(), directory.path()), "must be the name of a file beside it"));
}

TEST(Weights, DrawnOnesDependOnSeedAndNameAlone) {
  const NamedTensors tensors = drawn(tiny());
  EXPECT_TRUE(drawn(tiny())[0].second.equal(tensors[0].second));
  const auto other = build_model(tiny(), {});
  draw_weights(*other, {}, 8);
  EXPECT_FALSE(other->parameters()[0].value.equal(tensors[0].second));
  ModelConfig deeper = tiny();
  deeper.num_hidden_layers = 2;
  deeper.sliding_window = {0, 0};
  NamedTensors more = drawn(deeper);
  EXPECT_TRUE(named(more, "lm_head.weight").equal(tensors.back().second));
  EXPECT_NEAR(tensors[0].second.std().item<double>(), 0.02, 0.002);
  EXPECT_TRUE(named(more, "model.norm.weight").eq(1.0).all().item<bool>());
}

TEST(Weights, MastersKeepWhatTheComputeTypeRounds) {
  const ModelOptions options{.compute = at::kBFloat16, .weights = at::kBFloat16};
  const auto model = build_model(tiny(), options);
  draw_weights(*model, options, 7);
  const Parameter& p = model->parameters()[0];
  EXPECT_EQ(p.value.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(p.master.equal(drawn(tiny())[0].second));
  EXPECT_TRUE(p.value.equal(p.master.to(at::kBFloat16)));
  EXPECT_TRUE(p.trainable());

  // Computing in float32 with weights kept in bfloat16: what forward sees is rounded.
  const ModelOptions rounded{.weights = at::kBFloat16};
  const auto mixed = build_model(tiny(), rounded);
  draw_weights(*mixed, rounded, 7);
  EXPECT_TRUE(mixed->parameters()[0].value.equal(p.master.to(at::kBFloat16).to(at::kFloat)));
}

TEST(Weights, MastersOfFloat16KeepWhatItRounds) {
  const ModelOptions options{.compute = at::kHalf, .weights = at::kHalf};
  EXPECT_TRUE(has_own_master(options));
  const auto model = build_model(tiny(), options);
  draw_weights(*model, options, 7);
  const Parameter& p = model->parameters()[0];
  EXPECT_EQ(p.value.scalar_type(), at::kHalf);
  EXPECT_TRUE(p.master.equal(drawn(tiny())[0].second));
  EXPECT_TRUE(p.value.equal(p.master.to(at::kHalf)));
}

TEST(Weights, BiasesAndNormsDoNotDecay) {
  ModelConfig config = tiny();
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  const auto model = build_model(config, {});
  for (const Parameter& p : model->parameters()) {
    EXPECT_EQ(p.decay, !p.name.ends_with(".bias") && !p.name.ends_with("norm.weight")) << p.name;
  }
  const auto gpt2 = build_model(tiny_gpt2(), {});
  for (const Parameter& p : gpt2->parameters()) {
    const bool norm = p.name.find(".ln_") != std::string::npos;
    EXPECT_EQ(p.decay, !p.name.ends_with(".bias") && !norm) << p.name;
  }
}

TEST(Model, FlopsOfATokenCountMatrixWeightsSixTimesAndCausalAttention) {
  ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = 512;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 64;
  // 8 layers of 512 x (512 + 256 + 256 + 512) and 3 x 512 x 1536, and a head of 512 x 32000: 41.5M;
  // attention 12 x 8 x 512 x 256.
  EXPECT_EQ(training_flops_per_token(config, 256), 6.0 * 41549824 + 12582912);
  EXPECT_EQ(training_flops_per_token(config, 256, /*frozen=*/true), 4.0 * 41549824 + 12582912);
  config.gelu = Gelu::kTanh;  // two matrices an MLP
  EXPECT_EQ(training_flops_per_token(config, 256), 6.0 * (41549824 - 8 * 512 * 1536) + 12582912);
}

TEST(Weights, OfGpt2AreDrawnAsTransformersDoesAndSmallerTowardsTheResidualStream) {
  ModelConfig config = gpt2_of({.hidden = 64, .mlp = 256, .layers = 8, .heads = 2});
  NamedTensors tensors = drawn(config);
  const auto deviation = [&](const std::string& name) {
    return named(tensors, name).std().item<double>();
  };
  EXPECT_NEAR(deviation("transformer.h.7.attn.c_attn.weight"), 0.02, 0.001);
  EXPECT_NEAR(deviation("transformer.wpe.weight"), 0.02, 0.001);
  EXPECT_NEAR(deviation("transformer.h.7.attn.c_proj.weight"), 0.02 / 4, 0.0003);
  EXPECT_NEAR(deviation("transformer.h.0.mlp.c_proj.weight"), 0.02 / 4, 0.0003);
  for (const char* norm : {"transformer.h.3.ln_1", "transformer.h.3.ln_2", "transformer.ln_f"}) {
    EXPECT_TRUE(named(tensors, std::string(norm) + ".weight").eq(1).all().item<bool>()) << norm;
    EXPECT_TRUE(named(tensors, std::string(norm) + ".bias").eq(0).all().item<bool>()) << norm;
  }
  EXPECT_TRUE(named(tensors, "transformer.h.3.mlp.c_fc.bias").eq(0).all().item<bool>());
}

TEST(Weights, OfGpt2LieTransposedInFilesWithOrWithoutThePrefix) {
  const ModelConfig config = tiny_gpt2();
  const NamedTensors tensors = drawn(config);
  for (const bool prefix : {true, false}) {
    const Scratch directory;
    NamedTensors stored = as_stored(tensors, config);
    EXPECT_EQ(named(stored, "transformer.h.0.attn.c_attn.weight").sizes(),
              at::IntArrayRef({16, 48}));
    for (auto& [name, tensor] : stored) {
      if (!prefix) name = name.substr(std::string("transformer.").size());
    }
    stored.emplace_back(prefix ? "transformer.h.0.attn.bias" : "h.0.attn.bias", at::ones({2}));
    write_safetensors(directory / "model.safetensors", stored);
    EXPECT_EQ(findings(config, directory.path()), std::vector<std::string>());
    const auto model = build_model(config, {});
    load_weights(*model, {}, directory.path());
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_TRUE(model->parameters()[i].value.equal(tensors[i].second)) << tensors[i].first;
      EXPECT_TRUE(stored_tensor(directory.path(), tensors[i].first, config).equal(tensors[i].second));
    }
    // What lies the other way round, or is not there, is said by its name in the file.
    named(stored, prefix ? "transformer.h.1.mlp.c_fc.weight" : "h.1.mlp.c_fc.weight") =
        at::ones({24, 16});
    stored.emplace_back("h.0.crossattention.c_attn.weight", at::ones({2}));
    write_safetensors(directory / "model.safetensors", stored);
    const auto lines = findings(config, directory.path());
    EXPECT_EQ(lines.size(), 2u);
    EXPECT_TRUE(ends_with_one_of(lines, "h.1.mlp.c_fc.weight' is [24, 16] but config.json wants [16, 24]"));
    EXPECT_TRUE(ends_with_one_of(lines, "'h.0.crossattention.c_attn.weight' is not part of a GPT2LMHeadModel"));
  }
}

TEST(Weights, OfGpt2QuantiseAsTheirTransposes) {
  const Scratch directory;
  const ModelConfig config = tiny_gpt2();
  const NamedTensors tensors = drawn(config);
  write_safetensors(directory / "model.safetensors", as_stored(tensors, config));
  const ModelOptions options{.frozen = true, .quantize = QuantKind::kInt8};
  const auto model = build_model(config, options);
  load_weights(*model, options, directory.path());
  NamedTensors all = tensors;
  for (const LinearSlot& slot : model->linears()) {
    const at::Tensor weight = slot.projection->part_weight(slot.part, at::kFloat);
    EXPECT_TRUE(at::allclose(weight, named(all, slot.module + ".weight"), 0, 1e-3)) << slot.module;
  }
}

// A row's padding counts on from 0, whatever the model knows.
TEST(Model, PaddingLongerThanTheLearnedPositionsHurtsNobody) {
  const ModelConfig config = gpt2_of({.context = 4});
  const auto model = build_model(config, {});
  draw_weights(*model, {}, 7);
  data::Batch batch;
  batch.token_ids = at::arange(9).unsqueeze(0);
  batch.positions = at::tensor({0, 1, 2, 0, 1, 2, 3, 4, 5}, at::kLong).unsqueeze(0);
  batch.document_ends = at::tensor({0, 3, 9}, at::kInt);
  const at::Tensor padded = model->hidden(batch);
  batch.token_ids = batch.token_ids.narrow(1, 0, 3);
  batch.positions = batch.positions.narrow(1, 0, 3);
  batch.document_ends = batch.document_ends.narrow(0, 0, 2);
  EXPECT_TRUE(model->hidden(batch).equal(padded.narrow(1, 0, 3)));
}

TEST(Weights, RowsOfAddedTokensAreTheMeanOfTheOthers) {
  const Scratch scratch;
  const NamedTensors tensors = drawn(tiny());
  write_safetensors(scratch / "model.safetensors", tensors, {{"format", "pt"}});
  ModelConfig config = with_tokens(tiny(), 22, {20, 21});
  EXPECT_EQ(config.json["vocab_size"], 22);
  const auto model = build_model(config, {});
  load_weights(*model, {}, scratch.path());
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    const at::Tensor stored = stored_tensor(scratch.path(), name, config);
    ASSERT_EQ(stored.size(0), 22);
    for (const auto& [key, tensor] : tensors) {
      if (key != name) continue;
      EXPECT_TRUE(at::equal(stored.narrow(0, 0, 20), tensor));
      EXPECT_TRUE(at::allclose(stored.select(0, 21), tensor.mean(0)));
    }
    for (const Parameter& p : model->parameters()) {
      if (p.name == name) {
        EXPECT_TRUE(at::equal(p.value.detach(), stored));
      }
    }
  }
  EXPECT_EQ(with_tokens(tiny(), 12).vocab_size, 20);
}

}  // namespace
}  // namespace temper::trainer
