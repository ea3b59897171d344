#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/ops/paged_attention.h"

namespace temper::trainer {

/// Keys and values of the tokens seen so far of several sequences, in pages of 16 tokens (Kwon et
/// al. 2023, arXiv:2309.06180). Sequences that begin alike share pages; the page that one of them
/// goes on writing in becomes its own first. Pages come from a free list and go back to it; memory
/// grows as needed and is given back with the cache.
///
///     const int64_t prompt = cache.add();
///     model.hidden_cached(ids, {{prompt, 100}}, cache);      // prefill
///     const int64_t sample = cache.fork(prompt);
///     model.hidden_cached(next, {{sample, 1}}, cache);       // decode
class KvCache {
 public:
  /// A sequence of rows that nobody reads (padding): always without tokens, in a page of its own.
  static constexpr int64_t kNobody = -1;

  explicit KvCache(const PageShape& shape) : shape_(shape) {}

  /// A new sequence without tokens. Ids are used again.
  int64_t add();
  /// A new sequence with the tokens of `sequence`.
  int64_t fork(int64_t sequence);
  void remove(int64_t sequence);

  int64_t length(int64_t sequence) const { return of(sequence).length; }
  /// Room for `tokens` more, to be written at once (ops/paged_attention.h). The run's pages stay
  /// valid until the sequence's next extend or remove.
  PagedRun extend(int64_t sequence, int64_t tokens);

  const PageShape& shape() const { return shape_; }
  int64_t pages_in_use() const { return in_use_; }

 private:
  struct Sequence {
    bool alive = false;
    int64_t length = 0;
    std::vector<int64_t> pages;    // by number
    std::vector<char*> addresses;  // of the same
  };
  const Sequence& of(int64_t sequence) const;
  Sequence& of(int64_t sequence);
  int64_t take_page();
  void drop_page(int64_t page);
  at::Tensor empty_pages(int64_t count) const;
  at::Tensor memory_of(int64_t page) const;
  char* address(int64_t page) const;

  PageShape shape_;
  std::vector<Sequence> sequences_;
  std::vector<int64_t> unused_ids_;
  std::vector<at::Tensor> chunks_;   // of kPagesAChunk pages each; not filled
  std::vector<int32_t> references_;  // of each page
  std::vector<int64_t> free_;
  int64_t in_use_ = 0;
  at::Tensor nobodys_;  // page, and its address
  char* nobodys_address_ = nullptr;
};

}  // namespace temper::trainer
