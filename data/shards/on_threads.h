#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace temper::data {

/// Rows that are read before threads share in tokenizing them: as many, or so much text.
inline constexpr int64_t kTogetherRows = 256;
inline constexpr int64_t kTogetherBytes = 1 << 20;

/// Calls work(0), ..., work(count - 1), each once and in any order, on `threads` threads, of which
/// this is one. Throws what a call threw, once all threads have ended; further calls are then left
/// out.
void on_threads(int64_t threads, size_t count, const std::function<void(size_t)>& work);

}  // namespace temper::data
