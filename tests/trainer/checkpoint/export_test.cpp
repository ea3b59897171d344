#include "trainer/checkpoint/export.h"

#include <algorithm>

#include <sys/mount.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/checkpoint/shards.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class Export : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(model_ / "additional_chat_templates");
    write_all(model_ / "config.json", "{}");
    write_all(model_ / "tokenizer.json", "{\"a\": 1}");
    write_all(model_ / "chat_template.jinja", "{{ x }}");
    write_all(model_ / "generation_config.json", "{}");
    write_all(model_ / "additional_chat_templates/rag.jinja", "{{ y }}");
    write_all(model_ / "model.safetensors", "not copied");
    write_all(model_ / "notes.txt", "not copied");
  }

  ExportSource source() const {
    return {.tensors = {{"model.embed_tokens.weight", at::arange(40, at::kFloat).view({10, 4})},
                        {"model.norm.weight", at::ones({4})},
                        {"lm_head.weight", at::arange(40, at::kFloat).view({10, 4}).mul_(0.1f)}},
            .config = {{"architectures", {"LlamaForCausalLM"}},
                       {"torch_dtype", "float16"},
                       {"vocab_size", 10}},
            .tokenizer = {model_},
            .model_directory = model_,
            .model_card = "# card\n"};
  }

  const Scratch scratch_;
  const fs::path model_ = scratch_ / "model";
  const fs::path out_ = scratch_ / "export";
};

TEST_F(Export, WritesWhatTransformersLoads) {
  export_model(source(), out_, "bf16", 1000000);
  EXPECT_EQ(names_in(out_),
            (std::vector<std::string>{
                "README.md", "additional_chat_templates", "chat_template.jinja", "config.json",
                "generation_config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(
      data::Json::parse(read_all(out_ / "config.json")),
      (data::Json{
          {"architectures", {"LlamaForCausalLM"}}, {"vocab_size", 10}, {"dtype", "bfloat16"}}));
  EXPECT_EQ(read_all(out_ / "additional_chat_templates/rag.jinja"), "{{ y }}");
  EXPECT_EQ(read_all(out_ / "README.md"), "# card\n");
  const SafetensorsFile file(out_ / "model.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"model.embed_tokens.weight",
                                                    "model.norm.weight", "lm_head.weight"}));
  EXPECT_TRUE(
      at::equal(file.tensor("lm_head.weight"), source().tensors[2].second.to(at::kBFloat16)));
  EXPECT_EQ(names_in(scratch_.path()), (std::vector<std::string>{"export", "model"}));
}

TEST_F(Export, LargeModelsAreShardedWithAnIndex) {
  export_model(source(), out_, "fp32", 180);
  const data::Json index = data::Json::parse(read_all(out_ / "model.safetensors.index.json"));
  EXPECT_EQ(index, data::Json::parse(R"({"metadata": {"total_parameters": 84, "total_size": 336},
      "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors",
                     "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
                     "model.norm.weight": "model-00001-of-00002.safetensors"}})"));
  for (const auto& [name, tensor] : source().tensors) {
    const SafetensorsFile file(out_ / index["weight_map"][name].get<std::string>());
    EXPECT_TRUE(at::equal(file.tensor(name), tensor)) << name;
  }
  EXPECT_FALSE(fs::exists(out_ / "model.safetensors"));
}

TEST(ShardPlan, FollowsHuggingFaceHubsExample) {
  // 6, 6, 2, 6, 2, 2 with a limit of 10 become [6], [6 + 2], [6 + 2 + 2].
  NamedTensors tensors;
  for (const int64_t size : {6, 6, 2, 6, 2, 2}) {
    tensors.emplace_back("t" + std::to_string(tensors.size()), at::empty({size}, at::kByte));
  }
  const ShardPlan plan = plan_shards(tensors, at::kFloat, 10);
  ASSERT_EQ(plan.files.size(), 3u);
  EXPECT_EQ(plan.files[0].second, (std::vector<size_t>{0}));
  EXPECT_EQ(plan.files[1].second, (std::vector<size_t>{1, 2}));
  EXPECT_EQ(plan.files[2].second, (std::vector<size_t>{3, 4, 5}));
  EXPECT_EQ(plan.files[2].first, "model-00003-of-00003.safetensors");
  EXPECT_EQ(plan.total_bytes, 24);
}

TEST(ShardPlan, ATensorAboveTheLimitHasAFileOfItsOwn) {
  const NamedTensors tensors = {{"a", at::empty({2}, at::kByte)},
                                {"large", at::empty({20}, at::kByte)},
                                {"b", at::empty({3}, at::kByte)}};
  const ShardPlan plan = plan_shards(tensors, at::kFloat, 10);
  ASSERT_EQ(plan.files.size(), 2u);
  EXPECT_EQ(plan.files[0].second, (std::vector<size_t>{1}));
  EXPECT_EQ(plan.files[1].second, (std::vector<size_t>{0, 2}));
}

TEST_F(Export, ReplacesAnEarlierExportAlsoThatOfItsOwnSource) {
  export_model(source(), out_, "fp32", 170);
  ExportSource again = source();
  again.model_directory = out_;
  again.tokenizer = {out_};
  export_model(again, out_ / "", "fp32", 1000000);
  EXPECT_FALSE(fs::exists(out_ / "model.safetensors.index.json"));
  EXPECT_EQ(read_all(out_ / "tokenizer.json"), "{\"a\": 1}");
}

TEST_F(Export, NeverReplacesWhatIsNotAnExport) {
  fs::create_directories(out_);
  write_all(out_ / "thesis.tex", "years of work");
  EXPECT_THROW(export_model(source(), out_, "fp32", 1000), UserError);
  write_all(scratch_ / "file", "");
  EXPECT_THROW(export_model(source(), scratch_ / "file", "fp32", 1000), UserError);
  EXPECT_EQ(read_all(out_ / "thesis.tex"), "years of work");
}

TEST_F(Export, AFailureLeavesTheOldOneAndNothingElse) {
  export_model(source(), out_, "fp32", 1000000);
  ExportSource broken = source();
  broken.tensors[1].second[0] = 1e6f;
  broken.model_card = "# other\n";
  EXPECT_THROW(export_model(broken, out_, "fp16", 1000000), UserError);  // fp16 cannot hold it
  EXPECT_EQ(read_all(out_ / "README.md"), "# card\n");
  EXPECT_EQ(names_in(scratch_.path()), (std::vector<std::string>{"export", "model"}));
}

TEST_F(Export, AFullDiskIsARunErrorAndLeavesNothing) {
  fs::create_directories(scratch_ / "small");
  if (::mount("tmpfs", (scratch_ / "small").c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mounting a small file system needs root";
  }
  ExportSource large = source();
  large.tensors.emplace_back("large", at::zeros({100000}));
  std::string message;
  try {
    export_model(large, scratch_ / "small" / "export", "fp32", 100000000);
  } catch (const RunError& error) {
    message = error.what();
  }
  const bool empty = fs::is_empty(scratch_ / "small");
  ::umount2((scratch_ / "small").c_str(), MNT_DETACH);
  EXPECT_NE(message.find("disk full"), std::string::npos) << message;
  EXPECT_TRUE(empty);
}

TEST(ParseSize, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_size("5GB"), 5000000000);
  EXPECT_EQ(parse_size("500 mb"), 500000000);
  EXPECT_EQ(parse_size("1.5KiB"), 1536);
  EXPECT_EQ(parse_size("2TiB"), int64_t{2} << 40);
  EXPECT_EQ(parse_size("12345"), 12345);
  for (const char* bad :
       {"", "GB", "5XB", "-5GB", "0GB", "1.2.3GB", "5GBs", "1e400", "99999999999TB", "0x10GB"}) {
    EXPECT_THROW(parse_size(bad), UserError) << bad;
  }
}

}  // namespace
}  // namespace temper::trainer
