#pragma once

#include <memory>

#include "trainer/models/config.h"
#include "trainer/models/model.h"

/// objective.teacher: the model whose distributions gkd and distill learn.
namespace temper::recipes {
struct Recipe;
}

namespace temper::trainer {

struct Inputs;
struct Run;

/// Its config.json, once it fits the student: a language model with the same vocabulary (and the same
/// tokens, where it brings a tokenizer.json) and room for data.max_length tokens. Throws UserError.
ModelConfig teacher_config(const recipes::Recipe& recipe, const Inputs& student);

/// The teacher with its weights, frozen, in the student's compute type and model.dtype.
std::unique_ptr<Model> load_teacher(const Run& run);

}  // namespace temper::trainer
