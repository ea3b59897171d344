#pragma once

#include <memory>

#include "trainer/adapters/adapter.h"

/// The methods for linear layers besides LoRA, each equal to PEFT 0.21.2: forward, gradients, saved
/// names and shapes, distribution of the start, merge. One file each; fields of `peft` are
/// resolved.
namespace temper::trainer {

/// IA3 (Liu et al. 2022, arXiv:2205.05638): a scale for each output feature, bias included; in
/// layers that peft.feedforward_modules names, for each input feature. Saved: ia3_l.
std::unique_ptr<LinearAdapter> build_ia3(const recipes::Peft& peft, const LinearSite& site,
                                         AdapterTensors& tensors);

/// LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098): delta W = alpha/r (A1 B1) * (A2 B2), element by
/// element. Saved: hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b. Throws UserError for a rank above
/// the matrix.
std::unique_ptr<LinearAdapter> build_loha(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors);

/// LoKr (Edalati et al. 2022, arXiv:2212.10650; Yeh et al. 2023, arXiv:2309.14859): delta W =
/// alpha/r kron(W1, W2), either factor as a product of rank r where that is smaller. Saved: lokr_w1
/// or lokr_w1_a and _b, lokr_w2 or lokr_w2_a and _b.
std::unique_ptr<LinearAdapter> build_lokr(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors);

/// VeRA (Kopiczko et al. 2023, arXiv:2310.11454): delta W = diag(b) B diag(d) A with A and B
/// frozen, random and shared by all layers, which use their first columns and rows. Saved:
/// vera_lambda_b, vera_lambda_d; with save_projection also base_model.vera_A and base_model.vera_B,
/// once a model. A and B are drawn here from projection_prng_key, number for number as PEFT draws
/// them, and grow with the widest layer: their shapes are final when all layers are built.
std::unique_ptr<LinearAdapter> build_vera(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors);

/// OFT (Qiu et al. 2023, arXiv:2306.07280; Cayley-Neumann series: arXiv:2506.19847): the input is
/// rotated in blocks. Saved: oft_R.weight, the upper triangles of the blocks' skew matrices. Throws
/// UserError for a block size that does not divide the input (PEFT would take the nearest one).
/// PEFT takes module_dropout here but never applies it, nor does this.
std::unique_ptr<LinearAdapter> build_oft(const recipes::Peft& peft, const LinearSite& site,
                                         AdapterTensors& tensors);

/// BOFT (Liu et al. 2023, arXiv:2311.06243): the input is rotated by butterfly factors of blocks,
/// the product scaled a feature, then the bias added. Saved: boft_R, boft_s. Throws UserError for
/// blocks that do not fit the input. (PEFT takes one factor where its CUDA extension cannot be
/// built.)
std::unique_ptr<LinearAdapter> build_boft(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors);

/// AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): delta W = alpha/init_r B diag(E) A; adalora.h
/// decides which ranks live. Saved: lora_A, lora_B, lora_E. A count in peft.rank_pattern is how
/// many ranks a layer of a finished adapter has kept. Throws UserError for a rank above the matrix.
std::unique_ptr<LinearAdapter> build_adalora(const recipes::Peft& peft, const LinearSite& site,
                                             AdapterTensors& tensors);

}  // namespace temper::trainer
