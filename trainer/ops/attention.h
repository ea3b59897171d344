#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Heads of one layer. `window`: how many tokens a position looks back at, itself included; 0: all
/// of its document.
struct AttentionHeads {
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // K; query head h reads key/value head h / (H / K)
  int64_t head_dim = 0;  // E
  int64_t window = 0;
};

/// The documents of a packed batch: boundaries [S + 1] int32, and of each document the one that
/// stands in front of it, [S] int32 or -1 (undefined: no document has a prefix); data::Batch. Both on the host, and where
/// on_device() has put them there, also on the model's device: with prefixes, and unless that is the CPU, also the tokens that
/// each document sees, its prefix's and then its own.
struct DocumentLayout {
  at::Tensor ends;
  at::Tensor prefixes{};
  at::Tensor device_ends{}, device_prefixes{};
  at::Tensor device_seen{}, device_seen_ends{};  // [n] int64, [S + 1] int32
};

/// The layout with its copies on `device`; what is there already is not copied again.
DocumentLayout on_device(DocumentLayout documents, at::Device device);

/// Causal attention  softmax(q k^T / sqrt(E)) v  within each document of a packed batch, in blocks
/// with an online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
/// arXiv:2205.14135): the score matrix never exists. qkv [N, (H + 2 K) E]: queries, keys and values
/// of a token side by side. Returns [N, H E]. Scores, softmax and sums are float32 and in an order
/// that depends neither on threads nor on what else is in the batch. A document sees all of its
/// prefix, and its own result is the same to the bit as if a copy of the prefix stood before it.
at::Tensor attention(const at::Tensor& qkv, const DocumentLayout& documents,
                     const AttentionHeads& heads);

}  // namespace temper::trainer
