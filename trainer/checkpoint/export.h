#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "trainer/checkpoint/safetensors.h"

namespace temper::trainer {

/// Where a model's or an adapter's tokenizer and chat template are copied from.
struct TokenizerFiles {
  std::filesystem::path directory;
  std::vector<std::string> added_tokens{};  // written into the copies
};

struct ExportSource {
  NamedTensors tensors;  // the model's names, float32 masters or stored values
  /// Where given, makes what is written of `tensors`, a file at a time, so that no more is held.
  std::function<NamedTensors(const NamedTensors& of_file)> read{};
  data::Json config;     // config.json to write (dtype is set by export_model)
  TokenizerFiles tokenizer;
  std::filesystem::path model_directory;  // generation_config.json is copied from here
  std::string model_card;  // README.md
};

/// Writes a directory that transformers' AutoModelForCausalLM and AutoTokenizer load: config.json,
/// model.safetensors (or shards of at most `max_shard_bytes` with model.safetensors.index.json),
/// tokenizer files, chat template, generation_config.json, README.md. Complete or absent: a
/// temporary directory, then rename (an existing `out` is replaced only after the new one is
/// complete). `dtype`: "fp32" | "bf16" | "fp16". Throws RunError when the disk is full.
void export_model(const ExportSource& source, const std::filesystem::path& out,
                  const std::string& dtype, int64_t max_shard_bytes);

/// Copies what there is of tokenizer and chat template files into `out`.
void copy_tokenizer(const TokenizerFiles& files, const std::filesystem::path& out);
bool is_tokenizer_file(const std::string& name);

/// "fp32" | "bf16" | "fp16" as a type of tensors. Throws UserError for any other.
at::ScalarType stored_type(const std::string& dtype);

/// "5GB", "500MB", "1GiB" to bytes (transformers: GB = 10^9). Throws UserError.
int64_t parse_size(const std::string& text);

}  // namespace temper::trainer
