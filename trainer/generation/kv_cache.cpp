#include "trainer/generation/kv_cache.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

constexpr int64_t kPagesAChunk = 64;

}  // namespace

const KvCache::Sequence& KvCache::of(int64_t sequence) const {
  const auto index = static_cast<size_t>(sequence);
  TEMPER_CHECK(index < sequences_.size() && sequences_[index].alive, "no such sequence");
  return sequences_[index];
}

KvCache::Sequence& KvCache::of(int64_t sequence) {
  return const_cast<Sequence&>(static_cast<const KvCache*>(this)->of(sequence));
}

int64_t KvCache::add() {
  if (unused_ids_.empty()) {
    unused_ids_.push_back(static_cast<int64_t>(sequences_.size()));
    sequences_.emplace_back();
  }
  const int64_t id = unused_ids_.back();
  unused_ids_.pop_back();
  sequences_[static_cast<size_t>(id)] = {.alive = true, .length = 0, .pages = {}, .addresses = {}};
  return id;
}

int64_t KvCache::fork(int64_t sequence) {
  const int64_t id = add();
  of(id) = of(sequence);
  for (const int64_t page : of(id).pages) ++references_[static_cast<size_t>(page)];
  return id;
}

void KvCache::remove(int64_t sequence) {
  for (const int64_t page : of(sequence).pages) drop_page(page);
  of(sequence) = {};
  unused_ids_.push_back(sequence);
}

PagedRun KvCache::extend(int64_t sequence, int64_t tokens) {
  if (sequence == kNobody) {
    if (!nobodys_.defined()) {
      nobodys_ = empty_pages(1);
      nobodys_address_ = static_cast<char*>(nobodys_.data_ptr());
    }
    return {.pages = {&nobodys_address_, 1}, .position = 0, .tokens = tokens};
  }
  Sequence& s = of(sequence);
  const int64_t position = s.length;
  if (position % kPageTokens != 0 && references_[static_cast<size_t>(s.pages.back())] > 1) {
    const int64_t own = take_page();
    memory_of(own).copy_(memory_of(s.pages.back()));
    drop_page(s.pages.back());
    s.pages.back() = own;
    s.addresses.back() = address(own);
  }
  s.length += tokens;
  while (static_cast<int64_t>(s.pages.size()) * kPageTokens < s.length) {
    s.pages.push_back(take_page());
    s.addresses.push_back(address(s.pages.back()));
  }
  return {.pages = s.addresses, .position = position, .tokens = tokens};
}

int64_t KvCache::take_page() {
  if (free_.empty()) {
    const auto first = static_cast<int64_t>(references_.size());
    chunks_.push_back(empty_pages(kPagesAChunk));
    references_.resize(references_.size() + kPagesAChunk, 0);
    for (int64_t page = first + kPagesAChunk; page > first; --page) free_.push_back(page - 1);
  }
  const int64_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  ++in_use_;
  return page;
}

void KvCache::drop_page(int64_t page) {
  if (--references_[static_cast<size_t>(page)] > 0) return;
  free_.push_back(page);
  --in_use_;
}

at::Tensor KvCache::empty_pages(int64_t count) const {
  return at::empty({count, shape_.bytes()}, at::TensorOptions(shape_.device).dtype(at::kByte));
}

at::Tensor KvCache::memory_of(int64_t page) const {
  return chunks_[static_cast<size_t>(page / kPagesAChunk)].select(0, page % kPagesAChunk);
}

char* KvCache::address(int64_t page) const {
  return static_cast<char*>(memory_of(page).data_ptr());
}

}  // namespace temper::trainer
