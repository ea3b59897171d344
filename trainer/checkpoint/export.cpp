#include "trainer/checkpoint/export.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include <ATen/core/Tensor.h>

#include "data/io/atomic_file.h"
#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/replaced_directory.h"
#include "trainer/checkpoint/shards.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

// What a tokenizer and a chat template may consist of.
constexpr std::array kTokenizerFiles = {"tokenizer.json",
                                "tokenizer_config.json",
                                "special_tokens_map.json",
                                "added_tokens.json",
                                "vocab.json",
                                "merges.txt",
                                "vocab.txt",
                                "tokenizer.model",
                                "spiece.model",
                                "chat_template.jinja",
                                "chat_template.json",
                                "additional_chat_templates"};

constexpr const char* kConfigFile = "config.json";
constexpr const char* kGenerationFile = "generation_config.json";
constexpr const char* kCardFile = "README.md";
constexpr const char* kIndexFile = "model.safetensors.index.json";

struct StoredType {
  const char* key;    // export.dtype
  const char* torch;  // config.json's dtype
  at::ScalarType type;
};

StoredType find_stored_type(const std::string& dtype) {
  for (const StoredType& row :
       {StoredType{"fp32", "float32", at::kFloat}, StoredType{"bf16", "bfloat16", at::kBFloat16},
        StoredType{"fp16", "float16", at::kHalf}}) {
    if (dtype == row.key) return row;
  }
  throw UserError("dtype " + dtype + ": must be fp32, bf16 or fp16");
}

bool is_export_file(const std::string& name) {
  return name == kConfigFile || name == kCardFile || name == kIndexFile ||
         name == kGenerationFile || is_tokenizer_file(name) ||
         (name.starts_with("model") && name.ends_with(".safetensors"));
}

data::Json exported_config(data::Json config, const char* dtype) {
  config.erase("torch_dtype");  // its old spelling
  config.erase("quantization_config");  // what is written here never is
  config["dtype"] = dtype;
  return config;
}

void write_weights(const ExportSource& source, const fs::path& directory, at::ScalarType type,
                   int64_t max_shard_bytes) {
  const NamedTensors& tensors = source.tensors;
  const ShardPlan plan = plan_shards(tensors, type, max_shard_bytes);
  for (const auto& [file, members] : plan.files) {
    NamedTensors part;
    for (const size_t member : members) part.push_back(tensors[member]);
    if (source.read) part = source.read(part);
    write_safetensors(directory / file, part, {{"format", "pt"}}, type);
  }
  if (plan.files.size() > 1) {
    data::write_file_atomically(directory / kIndexFile,
                                data::dump_json(shard_index(plan, tensors)));
  }
}

}  // namespace

bool is_tokenizer_file(const std::string& name) {
  return std::find(kTokenizerFiles.begin(), kTokenizerFiles.end(), name) != kTokenizerFiles.end();
}

void copy_tokenizer(const TokenizerFiles& files, const fs::path& out) {
  for (const char* name : kTokenizerFiles) {
    const fs::path from = files.directory / name;
    if (fs::exists(from)) fs::copy(from, out / name, fs::copy_options::recursive);
  }
  if (files.added_tokens.empty()) return;
  data::Tokenizer::load(files.directory, files.added_tokens).add_to_files(out);
}

void export_model(const ExportSource& source, const fs::path& out, const std::string& dtype,
                  int64_t max_shard_bytes) {
  const StoredType stored = find_stored_type(dtype);
  write_directory(out, is_export_file, [&](const fs::path& made) {
    write_weights(source, made, stored.type, max_shard_bytes);
    copy_tokenizer(source.tokenizer, made);
    const fs::path generation = source.model_directory / kGenerationFile;
    if (fs::exists(generation)) fs::copy(generation, made / kGenerationFile);
    data::write_file_atomically(made / kCardFile, source.model_card);
    data::write_file_atomically(made / kConfigFile,
                                data::dump_json(exported_config(source.config, stored.torch)));
  });
}

at::ScalarType stored_type(const std::string& dtype) { return find_stored_type(dtype).type; }

int64_t parse_size(const std::string& text) {
  const auto fail = [&] {
    throw UserError("size \"" + text +
                    "\": must be a number of bytes with a unit (B, KB, MB, GB, TB: powers of 1000; "
                    "KiB, MiB, GiB, TiB: of 1024), as in \"5GB\"");
  };
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, number);
  if (error != std::errc{} || end != text.data() + digits) fail();
  std::string unit;
  for (const char c : text.substr(digits)) {
    if (c != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  struct Unit {
    const char* name;
    double bytes;
  };
  for (const Unit& known : {Unit{"", 1.0}, Unit{"B", 1.0}, Unit{"KB", 1e3}, Unit{"MB", 1e6},
                            Unit{"GB", 1e9}, Unit{"TB", 1e12}, Unit{"KIB", 0x1p10},
                            Unit{"MIB", 0x1p20}, Unit{"GIB", 0x1p30}, Unit{"TIB", 0x1p40}}) {
    if (unit != known.name) continue;
    const double bytes = number * known.bytes;
    if (!(bytes >= 1 && bytes < 0x1p63)) break;
    return static_cast<int64_t>(bytes);
  }
  fail();
  return 0;
}

}  // namespace temper::trainer
