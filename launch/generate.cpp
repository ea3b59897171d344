#include "trainer/generation/generate.h"

#include <cstdio>
#include <iostream>
#include <limits>
#include <optional>

#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/compute_device.h"
#include "launch/source.h"
#include "launch/startup.h"
#include "parallel/device.h"
#include "parallel/world.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/model.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

using trainer::SamplingSettings;

void add_options(po::options_description& options) {
  options.add_options()("prompt", po::value<std::string>(), "the text to continue (required)")(
      "chat", "the prompt is a user's message, rendered with the model's chat template")(
      "max-new-tokens", po::value<int64_t>(), "at most this many tokens")(
      "temperature", po::value<double>(), "0: greedy")(
      "top-p", po::value<double>(),
      "draw from the most likely tokens that make up this probability")(
      "top-k", po::value<int64_t>(), "draw from the K most likely tokens; 0: all")(
      "min-p", po::value<double>(),
      "leave out tokens below P times the most likely one's probability")(
      "repetition-penalty", po::value<double>(),
      "above 1: tokens that occurred become less likely")(
      "stop", po::value<std::vector<std::string>>(),
      "end before this text (may be given several times)")(
      "seed", po::value<uint64_t>()->default_value(0), "of the draws")(
      "dtype", po::value<std::string>()->default_value("auto"),
      "compute in fp32, bf16 or fp16; auto: as stored")(
      "device", po::value<std::string>()->default_value("auto"), "auto, cpu or cuda")(
      "adapter", po::value<std::string>(), "an adapter directory, on MODEL as its base");
}

/// `value` when `fits`, else a UserError that says what is allowed.
template <typename T>
T checked(const po::variables_map& given, const char* name, T value, bool (*fits)(T),
          const char* allowed) {
  if (given.count(name) == 0) return value;
  const T found = given[name].as<T>();
  if (!fits(found)) {
    std::ostringstream line;
    line << "temper generate: --" << name << " " << found << ": must be " << allowed;
    throw UserError(line.str());
  }
  return found;
}

/// Flags, else generation_config.json, else greedy. A flag that only matters to sampling asks for
/// sampling.
SamplingSettings settings_for(const fs::path& model, const data::Tokenizer& tokenizer,
                              const po::variables_map& given) {
  const fs::path file = model / "generation_config.json";
  const data::Json config = fs::exists(file) ? data::read_json(file) : data::Json();
  SamplingSettings settings = trainer::settings_from(config);
  const bool asks_for_sampling =
      given.count("top-p") != 0 || given.count("top-k") != 0 || given.count("min-p") != 0;
  if (asks_for_sampling && settings.temperature == 0) settings.temperature = 1.0;

  settings.temperature = checked<double>(
      given, "temperature", settings.temperature,
      [](double t) { return t >= 0 && t < std::numeric_limits<double>::infinity(); },
      "0 (greedy) or above");
  settings.top_p = checked<double>(
      given, "top-p", settings.top_p, [](double p) { return p > 0 && p <= 1; },
      "above 0 and at most 1");
  settings.top_k = checked<int64_t>(
      given, "top-k", settings.top_k, [](int64_t k) { return k >= 0; }, "0 (all) or above");
  settings.min_p = checked<double>(
      given, "min-p", settings.min_p, [](double p) { return p >= 0 && p <= 1; }, "from 0 to 1");
  settings.repetition_penalty = checked<double>(
      given, "repetition-penalty", settings.repetition_penalty,
      [](double r) { return r > 0 && r < std::numeric_limits<double>::infinity(); }, "above 0");
  settings.max_new_tokens = checked<int64_t>(
      given, "max-new-tokens", settings.max_new_tokens, [](int64_t n) { return n >= 1; },
      "at least 1");
  if (given.count("stop") != 0) settings.stop = given["stop"].as<std::vector<std::string>>();
  for (const std::string& stop : settings.stop) {
    if (stop.empty()) throw UserError("temper generate: --stop: must not be empty");
  }
  settings.seed = given["seed"].as<uint64_t>();
  if (settings.eos_ids.empty() && tokenizer.eos_id()) settings.eos_ids = {*tokenizer.eos_id()};
  return settings;
}

std::vector<int32_t> prompt_ids(const fs::path& model, const data::Tokenizer& tokenizer,
                                const std::string& prompt, bool chat) {
  if (!chat) return tokenizer.encode(prompt);
  const auto chat_template = data::ChatTemplate::load(model);
  if (!chat_template) {
    throw UserError(model.string() +
                    ": no chat template, which --chat needs: neither chat_template.jinja nor "
                    "chat_template in tokenizer_config.json");
  }
  data::ChatInput input;
  input.messages = data::Json::array({{{"role", "user"}, {"content", prompt}}});
  input.add_generation_prompt = true;
  return tokenizer.encode(chat_template->render(input).text, /*add_special_tokens=*/false);
}

at::ScalarType compute_type(const std::string& dtype, const trainer::ModelConfig& config) {
  const std::string& name = dtype == "auto" ? config.stored_dtype : dtype;
  if (name == "bf16" || name == "bfloat16") return at::kBFloat16;
  if (name == "fp16" || name == "float16") return at::kHalf;
  return at::kFloat;
}

void print_statistics(const trainer::Completion& completion) {
  const auto tokens = static_cast<double>(completion.ids.size());
  std::fprintf(stderr,
               "prompt: %lld tokens in %.3f s; completion: %zu tokens in %.3f s (%.1f tokens/s); "
               "ended by %s\n",
               static_cast<long long>(completion.prompt_tokens), completion.prefill_seconds,
               completion.ids.size(), completion.decode_seconds,
               completion.decode_seconds > 0 ? tokens / completion.decode_seconds : 0.0,
               completion.finish_reason.c_str());
}

}  // namespace

int generate(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper generate MODEL --prompt TEXT [options]",
      "Continues a text. Standard output holds the completion alone, streamed, and a newline;\n"
      "statistics go to standard error. Settings that are not given come from the model's\n"
      "generation_config.json, else the choice is greedy.",
      "temper generate runs/quickstart --prompt 'template <typename' --max-new-tokens 60");
  parser.positional("MODEL", "a model, run, checkpoint or adapter directory");
  add_options(parser.options());
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  if (given->count("prompt") == 0) throw UserError("temper generate: --prompt is missing");
  const std::string dtype = *one_of(*given, "dtype", {"auto", "fp32", "bf16", "fp16"});
  const std::string where = *one_of(*given, "device", {"auto", "cpu", "cuda"});
  const recipes::Device wanted = where == "cuda"  ? recipes::Device::kCuda
                                 : where == "cpu" ? recipes::Device::kCpu
                                                  : recipes::Device::kAuto;

  const fs::path model_path = (*given)["MODEL"].as<std::string>();
  const Source source = given->count("adapter") != 0
                            ? adapter_source((*given)["adapter"].as<std::string>(), model_path)
                            : resolve_source(model_path, RunMeans::kExport);
  const auto tokenizer = source.load_tokenizer();
  const SamplingSettings settings = settings_for(source.model, tokenizer, *given);
  const auto prompt = prompt_ids(source.tokenizer.directory, tokenizer, (*given)["prompt"].as<std::string>(),
                                 given->count("chat") != 0);

  if (source.load_config().num_labels > 0) {
    throw UserError(model_path.string() + ": a model that gives scores, not text: nothing to generate with");
  }
  parallel::load_plugin_early(wanted);
  return run_on_all_ranks([&](parallel::Session& session) {
    const at::Device device = open_device(session, wanted, /*deterministic=*/true).device;
    if (session.world().rank != 0) return int{kDone};
    // A token of a small model is so little work that sharing it out costs more than doing it.
    const auto config = source.load_config();
    session.use_threads(config.hidden_size < 512 ? 1 : 0);
    const at::ScalarType type = compute_type(dtype, config);
    const LoadedModel loaded = load_model(source, {.compute = type, .weights = type, .device = device});
    const auto completion =
        trainer::generate(*loaded.model, tokenizer, prompt, settings,
                          [](const std::string& piece) { std::cout << piece << std::flush; });
    std::cout << std::endl;
    print_statistics(completion);
    return int{kDone};
  });
}

}  // namespace temper::launch
