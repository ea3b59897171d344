#pragma once

#include "tests/trainer/llama_shape.h"

namespace temper::trainer {

/// The shape that programs here measure: a Llama of 58 million parameters.
inline ModelConfig llama_58m() {
  return llama_of({.vocabulary = 32000,
                   .hidden = 512,
                   .mlp = 1536,
                   .layers = 8,
                   .heads = 8,
                   .kv_heads = 4,
                   .context = 512});
}

}  // namespace temper::trainer
