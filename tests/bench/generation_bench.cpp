// Tokens a second that the sampling engine draws from a model, beside what the products alone take.
//
//   generation_bench [--dtype fp32|bf16] [--threads N] [--sequences N] [--prompt N] [--new N]
//                    [--exact 0|1] [--model DIR] --tokenizer DIR
//
// Without --model: a 58M-parameter Llama with random weights. One prompt a sequence; nothing ends
// early. The last line is one JSON object.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <ATen/Parallel.h>

#include "data/text/tokenizer.h"
#include "tests/bench/arguments.h"
#include "tests/bench/llama_58m.h"
#include "trainer/generation/engine.h"
#include "trainer/metrics/memory.h"
#include "trainer/models/model.h"
#include "trainer/ops/cpu_allocator.h"

using namespace temper;
using namespace temper::trainer;

int main(int count, char** arguments) {
  auto given = arguments_of(count, arguments,
                            {{"--dtype", "fp32"},
                             {"--threads", "2"},
                             {"--sequences", "32"},
                             {"--prompt", "64"},
                             {"--new", "64"},
                             {"--model", ""},
                             {"--exact", "0"},
                             {"--tokenizer", ""}});
  at::set_num_threads(std::stoi(given["--threads"]));
  use_caching_cpu_allocator();
  const at::ScalarType dtype = given["--dtype"] == "bf16" ? at::kBFloat16 : at::kFloat;
  const int64_t sequences = std::stoll(given["--sequences"]);
  const int64_t prompt = std::stoll(given["--prompt"]), fresh = std::stoll(given["--new"]);

  ModelConfig config = given["--model"].empty() ? llama_58m() : load_config(given["--model"]);
  const ModelOptions options{.compute = dtype, .weights = dtype, .frozen = true};
  const auto model = build_model(config, options);
  if (given["--model"].empty()) {
    draw_weights(*model, options, 1);
  } else {
    load_weights(*model, options, given["--model"]);
  }
  // No text is made of what is drawn: any tokenizer does.
  const auto tokenizer = data::Tokenizer::load(given["--tokenizer"]);
  std::vector<SampleRequest> requests;
  for (int64_t i = 0; i < sequences; ++i) {
    SampleRequest request{.prompt = {}, .samples = 1, .seed = static_cast<uint64_t>(i)};
    for (int64_t t = 0; t < prompt; ++t)
      request.prompt.push_back(static_cast<int32_t>((i * 131 + t * 17) % config.vocab_size));
    requests.push_back(request);
  }
  EngineTimes times;
  const EngineOptions engine{.slots = sequences, .exact = given["--exact"] == "1", .times = &times};
  sample(*model, tokenizer, requests, {.temperature = 1.0, .max_new_tokens = 4}, engine);  // warms
  times = {};
  sample(*model, tokenizer, requests, {.temperature = 1.0, .max_new_tokens = fresh}, engine);
  const double tokens = static_cast<double>(sequences * fresh);
  std::printf(
      "{\"dtype\": \"%s\", \"threads\": %s, \"sequences\": %lld, \"prefill_seconds\": %.4f, "
      "\"decode_seconds\": %.4f, \"tokens_per_second\": %.1f, \"decode_tokens_per_second\": %.1f, "
      "\"peak_mib\": %.0f}\n",
      given["--dtype"].c_str(), given["--threads"].c_str(), static_cast<long long>(sequences),
      times.prefill_seconds, times.decode_seconds,
      tokens / (times.prefill_seconds + times.decode_seconds), tokens / times.decode_seconds,
      peak_memory_mib());
  return 0;
}
