#include "recipes/schema.h"

#include <algorithm>

#include "recipes/row.h"

namespace temper::recipes {
namespace {

// Of ranks, rows and tokens of a row: far above any real one, and products of two do not overflow.
constexpr double kLargestCount = 1e9;

std::vector<Key> recipe_rows() {
  return {
      ROW(run.name,
          .meaning = "Name of the run, and of its directory under run.output; `train` needs one."),
      ROW(run.output, .meaning = "Directory of all runs.", .not_empty = true),
      ROW(run.seed, .meaning = "Start of every random number.", .range = at_least(0)),
      ROW(run.resume, .meaning = "Whether to go on from the run's newest checkpoint: `auto` if "
                                 "there is one, `never`, or `must`."),
      ROW(run.overwrite, .meaning = "Replace an existing run instead of refusing it."),
      ROW(run.deterministic,
          .meaning = "The same recipe and layout give the same bits; `\"layout\"`: on other "
                     "data-parallel layouts too, of a power of two of ranks."),

      ROW(model.path,
          .meaning = "Model directory (config.json, safetensors, tokenizer.json), or `org/name@revision` in "
                     "the hub's cache; always needed."),
      ROW(model.init, .meaning = "Start from the stored weights, or draw them from run.seed "
                                 "(`random`: only config.json and the tokenizer are read)."),
      ROW(model.dtype,
          .meaning = "Type of the weights in memory; master weights and optimizer state are fp32."),
      ROW(model.attention, .meaning = "Attention kernel: `flash` never builds the score matrix, "
                                      "`math` is the plain formula."),
      ROW(model.quantize, .meaning = "Quantisation of the frozen base weights under an adapter.",
          .choices = {"none", "nf4", "fp4", "int8"}),
      ROW(model.double_quant, .meaning = "nf4, fp4: quantise the scales of quantised weights too."),
      ROW(model.adapter,
          .meaning = "An existing PEFT adapter: trained further, or frozen in `eval`."),
      ROW(model.add_tokens, .meaning = "New special tokens: rows added (the mean of the others), trained and "
                                       "saved."),
      ROW(model.download,
          .meaning = "Fetch `org/name` from the hub at `HF_ENDPOINT` (with `HF_TOKEN`) into its cache "
                     "under `HF_HOME`."),

      ROW(data.format, .meaning = "What a row is; `auto` recognises it by its columns.",
          .choices = {"auto", "text", "messages", "prompt-completion", "alpaca", "preference",
                      "unpaired-preference", "prompt", "classification", "pairs", "triplets"}),
      ROW(data.max_length,
          .meaning = "Longest sequence trained on, prompt and completion; where completions are "
                     "sampled: the longest prompt.",
          .unit = "tokens",
          .range = between(2, kLargestCount)),
      ROW(data.packing,
          .meaning = "How examples share a row: one each (`none`); best-fit decreasing (`bfd`), also "
                     "with longer rows cut into pieces (`bfd_split`); or end to end, cut at every "
                     "max_length (`wrapped`). Packed documents never attend to each other. Other kinds "
                     "than sft, and gkd and distill where they sample: `none`."),
      ROW(data.packing_window, .meaning = "Bins are made once per window, in file order.",
          .unit = "rows", .range = at_least(1)),
      ROW(data.streaming,
          .meaning = "Read training rows as they come, again and again, instead of preparing token "
                     "shards; a weight is a source's share of the rows. Needs train.steps."),
      ROW(data.shuffle_buffer,
          .meaning = "Window in which streamed rows are shuffled and packed; it ends earlier after 32M "
                     "tokens, and the first windows of a run are smaller.",
          .unit = "rows", .range = at_least(1)),
      ROW(data.group_by_length,
          .meaning = "Steps of rows of similar length, out of 50 steps shuffled together; for "
                     "`packing = \"none\"`, where short rows are padded."),
      ROW(data.drop_last, .meaning = "Leave out the last, smaller step of an epoch."),
      ROW(data.loss_on, .meaning = "sft: supervised tokens; `auto`: all of a text, the completion "
                                   "of a prompt-completion row, the assistant's turns of "
                                   "messages."),
      ROW(data.on_bad_row,
          .meaning = "A row that cannot be used stops the run, or is counted and skipped."),
      ROW(data.on_long_row,
          .meaning = "Rows above max_length; `auto` splits text, drops rows of reward and where "
                     "completions are sampled, and truncates the rest at the end (orpo, cpo: the "
                     "completion)."),
      ROW(data.shuffle,
          .meaning = "A new order every epoch; false: file order, whatever the layout."),
      ROW(data.workers, .meaning = "Threads that prepare batches, per rank.",
          .range = between(1, 256)),
      ROW(data.cache, .meaning = "Directory of the token shards.", .not_empty = true),

      ROW(generation.temperature,
          .meaning = "Sampling temperature; 0 is greedy. `auto`, here and below: the model's "
                     "generation_config.json; training: 1 (online_dpo: 0.9), and nothing cut off.",
          .range = at_least(0)),
      ROW(generation.top_p,
          .meaning = "Sample from the smallest set of tokens with this probability.",
          .range = above_up_to(0, 1)),
      ROW(generation.top_k, .meaning = "Sample from the k likeliest tokens; 0: all.",
          .range = at_least(0)),
      ROW(generation.min_p,
          .meaning = "Leave out tokens below this share of the likeliest one's probability.",
          .range = between(0, 1)),
      ROW(generation.repetition_penalty,
          .meaning = "Divides the logits of tokens seen before; 1: off.", .range = above(0)),
      ROW(generation.max_new_tokens,
          .meaning = "Longest completion; in training: objective.max_completion_length.",
          .unit = "tokens",
          .range = at_least(1)),
      ROW(generation.stop, .meaning = "Strings that end a completion."),
      ROW(generation.exact,
          .meaning = "Generation gives the training forward's log-probabilities to the bit."),

      ROW(optimizer.kind, .meaning = "transformers' name without `_torch`.",
          .choices = {"adamw", "sgd", "adafactor", "lion", "adamw_8bit", "paged_adamw_8bit"},
          .works = {"adamw", "sgd", "adamw_8bit", "paged_adamw_8bit"}),
      ROW(optimizer.lr,
          .meaning = "Peak learning rate; `auto`: 2e-4 where an adapter is trained, else the "
                     "objective's (sft 2e-5, reward 1e-4, others 1e-6).",
          .range = above(0)),
      ROW(optimizer.betas, .meaning = "AdamW kinds: decay of the first and second moment.",
          .range = from_to_below(0, 1)),
      ROW(optimizer.eps, .meaning = "AdamW kinds: added to the root of the second moment.",
          .range = above(0)),
      ROW(optimizer.momentum, .meaning = "SGD: momentum.", .range = from_to_below(0, 1)),
      ROW(optimizer.weight_decay,
          .meaning = "Decay per step, times the learning rate; not on biases and norms.",
          .range = at_least(0)),
      ROW(optimizer.max_grad_norm,
          .meaning = "Clip the norm of all gradients to this; 0: no clipping.",
          .range = at_least(0)),
      ROW(optimizer.loraplus_lr_ratio,
          .meaning = "LoRA+ (arXiv:2402.12354): B learns this many times faster; `auto`: off.",
          .range = above(0)),
      ROW(optimizer.loraplus_lr_embedding, .meaning = "LoRA+: learning rate of adapted embeddings.",
          .range = at_least(0)),
      ROW(optimizer.loraplus_weight_decay, .meaning = "LoRA+: takes the place of weight_decay.",
          .range = at_least(0)),

      ROW(schedule.kind, .meaning = "transformers' schedule of the learning rate over the steps.",
          .choices = {"linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
                      "constant_with_warmup", "inverse_sqrt", "cosine_with_min_lr",
                      "cosine_warmup_with_min_lr", "warmup_stable_decay"}),
      ROW(schedule.warmup,
          .meaning = "Below 1 a fraction of all steps, rounded up; else a number of steps.",
          .range = at_least(0)),
      ROW(schedule.num_cycles,
          .meaning = "cosine*, warmup_stable_decay: waves, 0.5 falls once to the end "
                     "(cosine_with_restarts: 1).",
          .range = above(0)),
      ROW(schedule.min_lr, .meaning = "cosine*_with_min_lr: the lowest rate.",
          .range = at_least(0)),
      ROW(schedule.min_lr_rate,
          .meaning = "cosine*_with_min_lr: the lowest rate as a share of optimizer.lr.",
          .range = between(0, 1)),
      ROW(schedule.warmup_lr_rate,
          .meaning = "cosine_warmup_with_min_lr: first rate as a share of optimizer.lr.",
          .range = between(0, 1)),
      ROW(schedule.lr_end, .meaning = "polynomial: the last rate (1e-7).", .range = at_least(0)),
      ROW(schedule.power, .meaning = "polynomial: the exponent (1).", .range = above(0)),
      ROW(schedule.timescale,
          .meaning =
              "inverse_sqrt: steps after which the rate has fallen to 0.7 (the warm-up, or 10000).",
          .unit = "steps", .range = at_least(1)),
      ROW(schedule.num_decay_steps, .meaning = "warmup_stable_decay: length of the decay; needed.",
          .unit = "steps", .range = at_least(1)),
      ROW(schedule.min_lr_ratio,
          .meaning = "warmup_stable_decay: the lowest rate as a share of optimizer.lr (0).",
          .range = between(0, 1)),
      ROW(schedule.decay_type, .meaning = "warmup_stable_decay: shape of the decay (cosine).",
          .choices = {"linear", "cosine", "1-sqrt"}),
      ROW(schedule.warmup_type, .meaning = "warmup_stable_decay: shape of the warm-up (linear).",
          .choices = {"linear", "cosine", "1-sqrt"}),

      ROW(batch.global,
          .meaning = "Sequences per optimizer step over all ranks, a multiple of micro x "
                     "data-parallel ranks; gradient accumulation follows. A pair is 1; grpo, rloo, "
                     "ppo: completions.",
          .unit = "rows", .range = between(1, kLargestCount)),
      ROW(batch.micro, .meaning = "Sequences (packed rows) per rank and forward pass.",
          .unit = "rows", .range = between(1, kLargestCount)),

      ROW(train.epochs, .meaning = "Passes over the data; may be a fraction.", .range = above(0)),
      ROW(train.steps, .meaning = "Optimizer steps, instead of epochs.", .unit = "steps",
          .range = at_least(1)),
      ROW(train.precision,
          .meaning = "Type that forward and backward compute in; `fp16` scales the loss dynamically, "
                     "and a step that overflows is skipped and counted."),
      ROW(train.float8,
          .meaning = "Products of the blocks' linear layers in float8, as torchao's recipes of these "
                     "names; on the CPU emulated, no faster (docs/gpu.md)."),
      ROW(train.activation_checkpointing,
          .meaning = "Recompute activations in backward: of no layer, of every layer, or all but "
                     "the costly products (`selective`)."),
      ROW(train.device, .meaning = "Where to compute; `auto`: CUDA where the plugin, a driver and a device are "
                                  "there, else the CPU."),
      ROW(train.cuda_graphs,
          .meaning = "Record a micro-batch's forward and backward once and start them with one call; "
                     "packed `sft` on a GPU, for small models (docs/gpu.md)."),
      ROW(train.threads,
          .meaning = "Compute threads per rank; `auto`: the cores this host allows / ranks on it.",
          .range = between(1, 4096)),
      ROW(train.on_nan, .meaning = "A loss or gradient that is not finite stops the run, or its "
                                   "step is skipped on all ranks and counted."),
      ROW(train.trainable, .meaning = "Regular expressions (ECMAScript, found anywhere) over "
                                      "parameter names: only these are trained; empty: all."),
      ROW(train.frozen, .meaning = "Regular expressions over parameter names: these are not "
                                   "trained, whatever trainable says."),
      ROW(train.neftune_noise_alpha, .meaning = "NEFTune: noise on the embeddings.",
          .range = at_least(0), .works = {0.0}),

      ROW(parallel.backend,
          .meaning = "Library that carries tensors between ranks; `auto`: NCCL on CUDA, MPI on the CPU."),
      ROW(parallel.rendezvous,
          .meaning = "How ranks find each other: over MPI; or without it, on CUDA, at rank 0 "
                     "(`tcp://host:port`) or through a file that all ranks see (`file:///path`)."),
      ROW(parallel.bucket_mib,
          .meaning = "Gradients are exchanged in buckets of this size, while backward runs.",
          .unit = "MiB", .range = between(1, 1024)),
      ROW(parallel.reduce_dtype, .meaning = "Type in which gradients are exchanged.",
          .works = {"fp32"}),
      ROW(parallel.offload,
          .meaning = "What is kept in host memory, where the CPU updates: states and masters of the "
                     "optimizer. On the CPU everything is, whatever is said here."),
      ROW(parallel.reshard,
          .meaning = "ZeRO 3: give up gathered weights after forward, not only after backward."),
      ROW(parallel.replicate,
          .meaning = "Data-parallel copies; `auto`: what the other axes leave of the ranks.",
          .range = at_least(1)),
      ROW(parallel.shard, .meaning = "Data-parallel ranks that share one sharded copy.",
          .range = between(1, kLargestCount)),
      ROW(parallel.zero,
          .meaning = "What is sharded: optimizer state (1), gradients too (2), weights too (3); "
                     "`auto`: 3 where `shard` is above 1.",
          .range = between(1, 3)),
      ROW(parallel.tensor, .meaning = "Ranks that split every layer.",
          .range = between(1, kLargestCount), .works = {1}),
      ROW(parallel.pipeline, .meaning = "Ranks that hold consecutive layers.",
          .range = between(1, kLargestCount), .works = {1}),
      ROW(parallel.context, .meaning = "Ranks that split every sequence.",
          .range = between(1, kLargestCount), .works = {1}),
      ROW(parallel.expert, .meaning = "Ranks that split the experts.",
          .range = between(1, kLargestCount), .works = {1}),
      ROW(parallel.timeout, .meaning = "A silent collective counts as hung after this.",
          .unit = "seconds", .range = above(0)),

      ROW(checkpoint.every,
          .meaning = "Steps between checkpoints; the last step always has one; 0: only that.",
          .unit = "steps", .range = at_least(0)),
      ROW(checkpoint.keep, .meaning = "Newest checkpoints kept.", .range = at_least(1)),
      ROW(checkpoint.best, .meaning = "Also keep the best by eval.metric."),
      ROW(checkpoint.async, .meaning = "Write while training goes on."),

      ROW(eval.every,
          .meaning = "Steps between evaluations on [[data.eval]]; the last step always has one; "
                     "0: only that.",
          .unit = "steps", .range = at_least(0)),
      ROW(eval.at_start, .meaning = "Also evaluate before the first step."),
      ROW(eval.metric, .meaning = "What best and early stopping go by.",
          .choices = {"eval_loss", "eval_mean_token_accuracy", "eval_rewards/accuracies",
                      "eval_rewards/margins", "eval_accuracy", "eval_margin", "eval_reward"}),
      ROW(eval.greater_is_better, .meaning = "Whether a greater metric is better."),
      ROW(eval.early_stopping_patience,
          .meaning = "Stop after this many evaluations without improvement; 0: off.",
          .range = at_least(0)),

      ROW(log.every, .meaning = "Steps between lines of metrics.jsonl.", .unit = "steps",
          .range = at_least(1)),
      ROW(log.tensorboard, .meaning = "Write TensorBoard event files."),
      ROW(log.samples,
          .meaning = "A few generations with each evaluation, in samples/ and the report."),
      ROW(log.trace,
          .meaning = "Write trace.json, a timeline of all ranks for Perfetto: the first 100 steps "
                     "of a start."),

      ROW(export_.format, .meaning = "What is written to export/ at the end.",
          .choices = {"safetensors", "gguf"}, .works = {std::vector<std::string>{"safetensors"}},
          .not_empty = true),
      ROW(export_.dtype, .meaning = "Type of the exported weights; `auto`: model.dtype.",
          .choices = {"auto", "fp32", "bf16", "fp16"}),
      ROW(export_.merge, .meaning = "Fold the adapter into the weights."),
      ROW(export_.max_shard_size,
          .meaning = "Larger models are exported in several files; as \"5GB\" or \"800MiB\".",
          .not_empty = true),
  };
}

std::vector<SourceKey> source_rows() {
  return {
      SOURCE_ROW(
          path,
          .meaning =
              "A .jsonl, .json, .csv, .parquet or .txt file (also .gz, .zst), or a glob; needed.",
          .not_empty = true),
      SOURCE_ROW(weight,
                 .meaning = "Share when several sources are mixed; in this version several sources "
                            "follow each other in order.",
                 .range = above(0), .works = {1.0}),
      SOURCE_ROW(columns, .meaning = "Temper's name of a column = its name in the file.",
                 .choices = {"text", "prompt", "completion", "messages", "conversations", "chosen",
                             "rejected", "label", "margin", "instruction", "input", "output", "history",
                             "system", "tools", "chat_template_kwargs", "text_pair", "anchor",
                             "positive", "negative", "query", "question", "answer", "sentence1",
                             "sentence2", "premise", "hypothesis", "score"}),
  };
}

template <class Row>
const Row* find_by_name(const std::vector<Row>& rows, std::string_view name) {
  const auto found =
      std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
  return found == rows.end() ? nullptr : &*found;
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> all = [] {
    std::vector<Key> rows = recipe_rows();
    const std::vector<Key> peft = peft_rows();
    const auto after_model = std::find_if(
        rows.begin(), rows.end(), [](const Key& key) { return key.name.starts_with("data."); });
    rows.insert(after_model, peft.begin(), peft.end());
    const std::vector<Key> objective = objective_rows();
    const auto after_data = std::find_if(rows.begin(), rows.end(), [](const Key& key) {
      return key.name.starts_with("generation.");
    });
    rows.insert(after_data, objective.begin(), objective.end());
    return rows;
  }();
  return all;
}

const std::vector<SourceKey>& source_keys() {
  static const std::vector<SourceKey> rows = source_rows();
  return rows;
}

const std::vector<RewardKey>& reward_keys() {
  static const std::vector<RewardKey> rows = reward_rows();
  return rows;
}

const Key* find_key(std::string_view name) { return find_by_name(keys(), name); }
const SourceKey* find_source_key(std::string_view name) {
  return find_by_name(source_keys(), name);
}
const RewardKey* find_reward_key(std::string_view name) {
  return find_by_name(reward_keys(), name);
}

const std::vector<std::string>& list_names() {
  static const std::vector<std::string> names = {"data.train", "data.eval", "objective.rewards"};
  return names;
}

bool is_list(std::string_view name) {
  return std::find(list_names().begin(), list_names().end(), name) != list_names().end();
}

const std::vector<std::string>& table_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> tables;
    for (const Key& key : keys()) {
      const std::string table = key.name.substr(0, key.name.find('.'));
      if (tables.empty() || tables.back() != table) tables.push_back(table);
    }
    return tables;
  }();
  return names;
}

}  // namespace temper::recipes
