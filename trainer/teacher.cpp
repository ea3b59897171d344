#include "trainer/teacher.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include "data/hub/repository.h"
#include "recipes/diagnostic.h"
#include "trainer/run.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

// Ids mean the same to both: the divergence compares probabilities id by id.
void check_tokens(const fs::path& directory, const Inputs& student, const std::string& here) {
  if (!fs::exists(directory / "tokenizer.json")) return;
  const data::Tokenizer theirs = data::Tokenizer::load(directory);
  const data::Tokenizer& ours = student.tokenizer;
  const auto ids = static_cast<int32_t>(std::max(theirs.size(), ours.size()));
  for (int32_t id = 0; id < ids; ++id) {
    if (theirs.id_to_token(id) == ours.id_to_token(id)) continue;
    throw UserError(here + "its tokenizer.json calls token " + std::to_string(id) + " \"" +
                    theirs.id_to_token(id) + "\", that of " +
                    student.tokenizer_files.directory.string() + " \"" + ours.id_to_token(id) +
                    "\": must be a model with the student's vocabulary");
  }
}

fs::path teacher_directory(const recipes::Recipe& recipe) {
  return data::model_directory(recipe.objective.teacher.value_or(""), "objective.teacher", recipe.model.download);
}

}  // namespace

ModelConfig teacher_config(const recipes::Recipe& recipe, const Inputs& student) {
  const std::string given = recipe.objective.teacher.value_or("");
  const std::string here = "objective.teacher = \"" + given + "\": ";
  const fs::path directory = teacher_directory(recipe);
  ModelConfig config = load_config(directory);
  if (config.num_labels > 0) {
    throw UserError(here + "a " + config.architecture + " gives scores: must be a language model");
  }
  if (config.vocab_size != student.config.vocab_size) {
    throw UserError(here + "has vocab_size = " + std::to_string(config.vocab_size) + ", but " +
                    student.model_directory.string() + " has " +
                    std::to_string(student.config.vocab_size) +
                    ": must be a model with the student's vocabulary");
  }
  check_tokens(directory, student, here);
  if (recipe.data.max_length > config.max_position_embeddings) {
    throw UserError("data.max_length = " + std::to_string(recipe.data.max_length) +
                    ": above the teacher's max_position_embeddings = " +
                    std::to_string(config.max_position_embeddings) + " (" +
                    (directory / "config.json").string() + ")");
  }
  return config;
}

std::unique_ptr<Model> load_teacher(const Run& run) {
  ModelOptions options = model_options(run.recipe, run.device);
  options.activation_checkpointing = 0;
  options.frozen = true;
  options.quantize.reset();
  options.float8.reset();
  auto teacher = build_model(teacher_config(run.recipe, run.inputs), options);
  load_weights(*teacher, options, teacher_directory(run.recipe));
  return teacher;
}

}  // namespace temper::trainer
