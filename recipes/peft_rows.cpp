#include "recipes/peft_methods.h"
#include "recipes/row.h"

namespace temper::recipes {

// Which of these a method has, and its default: peft_methods.cpp. Here is what the values mean and
// what they may be for any method.
std::vector<Key> peft_rows() {
  return {
      ROW(peft.method, .meaning = "PEFT's peft_type in lower case; `lora` where [peft] has none.",
          .choices = peft_method_names()),
      ROW(peft.dtype, .meaning = "Type of the adapter's weights, in memory and on disk.",
          .works = {"fp32", "bf16"}),

      ROW(peft.target_modules,
          .meaning = "Modules to adapt: `\"all-linear\"` (all but the output head), a regular "
                     "expression for the whole name, or a list of names or their ends; unset: "
                     "PEFT's choice for the architecture; `[]`: none but target_parameters."),
      ROW(peft.target_parameters,
          .meaning = "Weights to adapt by their own names or ends of these (`mlp.up_proj.weight`), "
                     "beside target_modules: the weight of a linear layer, in every layer that has "
                     "it. rank_pattern and alpha_pattern are held against these names."),
      ROW(peft.exclude_modules,
          .meaning = "Modules that are not adapted, whatever target_modules says; as there.",
          .not_empty = true),
      ROW(peft.feedforward_modules,
          .meaning = "Those of target_modules whose inputs are scaled instead of their outputs.",
          .not_empty = true),
      ROW(peft.modules_to_save,
          .meaning = "Modules of the base that are trained as a whole and saved along."),
      ROW(peft.layers_to_transform, .meaning = "Layers to adapt, counted from 0; unset: all.",
          .range = at_least(0), .not_empty = true),
      ROW(peft.layers_pattern,
          .meaning = "Name of the list of layers, where it is not a usual one (`layers`, `h`).",
          .not_empty = true),
      ROW(peft.trainable_token_indices, .meaning = "Tokens whose embeddings are trained too.",
          .range = at_least(0), .not_empty = true),

      ROW(peft.r, .meaning = "Rank; OFT: blocks a layer, 0: as oft_block_size makes them.",
          .range = at_least(0)),
      ROW(peft.lora_alpha, .meaning = "The update counts lora_alpha / r times.",
          .range = at_least(1)),
      ROW(peft.lora_dropout, .meaning = "Dropout on the input of A.", .range = from_to_below(0, 1)),
      ROW(peft.bias,
          .meaning = "Which biases of the base are trained: none, all, or those of adapted layers.",
          .choices = {"none", "all", "lora_only", "vera_only", "oft_only", "boft_only"}),
      ROW(peft.use_rslora,
          .meaning = "The update counts lora_alpha / sqrt(r) times (arXiv:2312.03732)."),
      ROW(peft.use_dora,
          .meaning = "Train direction and magnitude apart (DoRA, arXiv:2402.09353)."),
      ROW(peft.lora_bias, .meaning = "B has a bias."),
      ROW(peft.init_lora_weights,
          .meaning = "How A and B start: the update is zero (`true`, `\"gaussian\"`, "
                     "`\"orthogonal\"`, `\"eva\"`: A from the inputs in the training data), random "
                     "(`false`), taken out of the base weights (`\"pissa\"`, "
                     "`\"pissa_niter_16\"`, `\"olora\"`), or what quantising them loses "
                     "(`\"loftq\"`).",
          .choices = {"gaussian", "orthogonal", "pissa", "pissa_niter_<k>", "olora", "eva", "loftq",
                      "corda", "lora_ga", "mica"},
          .works = {true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_<k>", "olora",
                    "eva", "loftq"}),
      ROW(peft.rank_pattern,
          .meaning =
              "Other ranks for some modules: regular expression for the end of the name = r.",
          .range = at_least(1)),
      ROW(peft.alpha_pattern, .meaning = "Other alphas for some modules, as rank_pattern.",
          .range = at_least(1)),
      NAMED_ROW("peft.loftq_config.loftq_bits", peft.loftq_bits,
                .meaning = "LoftQ: bits of the quantised base.", .range = between(2, 8)),
      NAMED_ROW("peft.loftq_config.loftq_iter", peft.loftq_iter,
                .meaning = "LoftQ: alternations of quantisation and decomposition.",
                .range = at_least(1)),
      NAMED_ROW("peft.eva_config.rho", peft.eva_rho,
                .meaning = "EVA: the largest rank of a layer is rho r.", .range = at_least(1)),
      NAMED_ROW(
          "peft.eva_config.tau", peft.eva_tau,
          .meaning =
              "EVA: a layer is done when the cosine between successive directions is above this.",
          .range = between(0, 1)),
      NAMED_ROW("peft.eva_config.use_label_mask", peft.eva_use_label_mask,
                .meaning = "EVA: leave out inputs of tokens that are not supervised."),
      NAMED_ROW("peft.eva_config.whiten", peft.eva_whiten,
                .meaning = "EVA: whiten the directions."),
      NAMED_ROW("peft.eva_config.adjust_scaling_factors", peft.eva_adjust_scaling_factors,
                .meaning = "EVA: scale alpha along with the rank."),

      ROW(peft.target_r, .meaning = "AdaLoRA: average rank at the end.", .range = at_least(1)),
      ROW(peft.init_r, .meaning = "AdaLoRA: rank of every module at the start.",
          .range = at_least(1)),
      ROW(peft.tinit, .meaning = "AdaLoRA: steps before ranks begin to fall.", .unit = "steps",
          .range = at_least(0)),
      ROW(peft.tfinal, .meaning = "AdaLoRA: steps at the end with fixed ranks.", .unit = "steps",
          .range = at_least(0)),
      ROW(peft.deltaT, .meaning = "AdaLoRA: steps between two allocations.", .unit = "steps",
          .range = at_least(1)),
      ROW(peft.total_step, .meaning = "AdaLoRA: steps of the run; needed.", .unit = "steps",
          .range = at_least(1)),
      ROW(peft.beta1, .meaning = "AdaLoRA: decay of the mean sensitivity.",
          .range = above_and_below(0, 1)),
      ROW(peft.beta2, .meaning = "AdaLoRA: decay of the sensitivity's uncertainty.",
          .range = above_and_below(0, 1)),
      ROW(peft.orth_reg_weight,
          .meaning = "AdaLoRA: weight of the loss that keeps P and Q orthogonal.",
          .range = at_least(0)),

      ROW(peft.init_ia3_weights, .meaning = "Factors start at 1; false: random."),

      ROW(peft.alpha, .meaning = "The update counts alpha / r times.", .range = at_least(1)),
      ROW(peft.rank_dropout, .meaning = "Probability with which a row of the update is left out.",
          .range = from_to_below(0, 1)),
      ROW(peft.module_dropout,
          .meaning = "Probability with which a module's update (OFT: a block's) is left out.",
          .range = from_to_below(0, 1)),
      ROW(peft.init_weights,
          .meaning = "`true`: the model starts as the base; false: random; `\"lycoris\"`: as "
                     "LyCORIS does; `\"zero\"`: keys and values start at 0.",
          .choices = {"lycoris", "zero"}),
      ROW(peft.use_effective_conv2d, .meaning = "Another decomposition of convolutions.",
          .works = {false}),
      ROW(peft.decompose_both, .meaning = "Decompose the left matrix too."),
      ROW(peft.decompose_factor,
          .meaning = "Largest side of the left matrix; -1: as near to square as it can be.",
          .range = at_least(-1)),
      ROW(peft.rank_dropout_scale,
          .meaning = "Divide by the share of rows that rank_dropout left."),

      ROW(peft.projection_prng_key, .meaning = "Seed of the shared projections.",
          .range = at_least(0)),
      ROW(peft.save_projection, .meaning = "Save the shared projections with the adapter."),
      ROW(peft.vera_dropout, .meaning = "Dropout on the input of the projections.",
          .range = from_to_below(0, 1)),
      ROW(peft.d_initial, .meaning = "First value of the vector d."),

      ROW(peft.oft_block_size, .meaning = "Side of a block; 0: as r makes them.",
          .range = at_least(0)),
      ROW(peft.coft, .meaning = "Keep the rotation within eps of the identity."),
      ROW(peft.eps, .meaning = "How far coft lets the rotation go.", .range = above(0)),
      ROW(peft.block_share, .meaning = "All blocks of a layer are the same."),
      ROW(peft.use_cayley_neumann,
          .meaning = "Cayley transform by a Neumann series instead of an inverse."),
      ROW(peft.num_cayley_neumann_terms, .meaning = "Terms of that series.", .range = at_least(1)),
      ROW(peft.boft_block_size, .meaning = "Side of a block; 0: as boft_block_num makes them.",
          .range = at_least(0)),
      ROW(peft.boft_block_num, .meaning = "Blocks a layer; 0: as boft_block_size makes them.",
          .range = at_least(0)),
      ROW(peft.boft_n_butterfly_factor, .meaning = "Butterfly factors; 1: plain OFT.",
          .range = at_least(1)),
      ROW(peft.boft_dropout, .meaning = "Probability with which a block is left out.",
          .range = from_to_below(0, 1)),

      ROW(peft.num_virtual_tokens, .meaning = "Length of the prompt or prefix; needed.",
          .unit = "tokens", .range = at_least(1)),
      ROW(peft.prompt_tuning_init,
          .meaning = "The prompt starts as random vectors, random tokens of the vocabulary, or "
                     "prompt_tuning_init_text.",
          .choices = {"RANDOM", "SAMPLE_VOCAB", "TEXT"}),
      ROW(peft.prompt_tuning_init_text,
          .meaning = "Text for `TEXT`, repeated or cut to num_virtual_tokens.", .not_empty = true),
      ROW(peft.encoder_reparameterization_type, .meaning = "Network that makes the prompt.",
          .choices = {"MLP", "LSTM"}),
      ROW(peft.encoder_hidden_size,
          .meaning = "Width of the network that makes prompt or prefix; unset: that of a token.",
          .range = at_least(1)),
      ROW(peft.encoder_num_layers, .meaning = "Layers of the LSTM.", .range = at_least(1)),
      ROW(peft.encoder_dropout, .meaning = "Dropout of the LSTM.", .range = from_to_below(0, 1)),
      ROW(peft.prefix_projection, .meaning = "A small network makes the prefix."),
  };
}

}  // namespace temper::recipes
