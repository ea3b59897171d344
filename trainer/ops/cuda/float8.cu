// Casts to float8: one pass for the largest magnitudes, one for the codes. A block takes a tile, a
// warp eight rows of it; codes of a transpose are turned round in shared memory.
#include "trainer/ops/cuda/float8_math.h"
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

constexpr int kLaneColumns = 4;
constexpr int kTileColumns = kWarp * kLaneColumns;
constexpr int kWarps = kThreads / kWarp;
constexpr int kWarpRows = 8;
constexpr int kTileRows = kWarps * kWarpRows;
constexpr int kWord = 4;  // codes that are stored together
static_assert(kLaneColumns == kWord);

__host__ __device__ inline int64_t tiles_across(const Float8View& v) {
  return (v.columns + kTileColumns - 1) / kTileColumns;
}
int64_t tiles(const Float8View& v) {
  return tiles_across(v) * ((v.rows + kTileRows - 1) / kTileRows);
}

// A thread's place: rows first_row.. of its warp, columns first_column.. of its lane.
struct Place {
  int64_t first_row, first_column;
  int warp_row, lane_column;  // within the tile
  int rows, columns;          // from there to the matrix's end, none where below 1

  __device__ explicit Place(const Float8View& v)
      : warp_row(static_cast<int>(threadIdx.x) / kWarp * kWarpRows),
        lane_column(lane() * kLaneColumns) {
    const int64_t tile = blockIdx.x;
    first_row = tile / tiles_across(v) * kTileRows + warp_row;
    first_column = tile % tiles_across(v) * kTileColumns + lane_column;
    rows = least(v.rows - first_row, kWarpRows);
    columns = least(v.columns - first_column, kLaneColumns);
  }
  __device__ static int least(int64_t a, int b) { return a < b ? static_cast<int>(a) : b; }
};

// What a thread has of the matrix, and behind its end the last row or columns again. All of it is
// asked for before anything is stored or waited for.
template <class T, int kWide>
struct Rows {
  Pack<T, kWide> at[kWarpRows][kLaneColumns / kWide];

  __device__ Rows(const Float8View& v, const Place& place) {
    const T* from = static_cast<const T*>(v.from) + place.first_row * v.stride + place.first_column;
    for (int i = 0; i < kWarpRows; ++i) {
      const T* row = from + Place::least(place.rows - 1, i) * v.stride;
      for (int k = 0; k < kLaneColumns; k += kWide)
        at[i][k / kWide] = load_pack<kWide>(row + Place::least(place.columns - kWide, k));
    }
  }
  __device__ float operator()(int i, int k) const {
    return widened(at[i][k / kWide].at[k % kWide]);
  }
};

// Magnitudes are compared as bits, in which NaN is above all.
__device__ inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
__device__ inline uint32_t warp_larger(uint32_t x) {
  for (int width = kWarp / 2; width > 0; width /= 2)
    x = larger(x, __shfl_xor_sync(kAllLanes, x, width));
  return x;
}

__device__ inline uint32_t magnitude(float x) { return bits_of_float(x) & 0x7fffffffu; }

template <class T, int kWide>
__global__ void amax_of_rows_kernel(Float8View v) {
  const Place place(v);
  const Rows<T, kWide> x(v, place);
  for (int i = 0; i < kWarpRows; ++i) {
    uint32_t largest = 0;
    for (int k = 0; k < kLaneColumns; ++k) largest = larger(largest, magnitude(x(i, k)));
    largest = warp_larger(largest);
    if (lane() == 0 && i < place.rows) atomicMax(v.amax + place.first_row + i, largest);
  }
}

template <class T, int kWide>
__global__ void amax_of_columns_kernel(Float8View v) {
  __shared__ uint32_t of_warps[kWarps][kTileColumns];
  const Place place(v);
  const Rows<T, kWide> x(v, place);
  for (int k = 0; k < kLaneColumns; ++k) {
    uint32_t largest = 0;
    for (int i = 0; i < kWarpRows; ++i) largest = larger(largest, magnitude(x(i, k)));
    of_warps[threadIdx.x / kWarp][place.lane_column + k] = largest;
  }
  __syncthreads();
  if (threadIdx.x >= kTileColumns) return;
  uint32_t largest = 0;
  for (int warp = 0; warp < kWarps; ++warp) largest = larger(largest, of_warps[warp][threadIdx.x]);
  const int64_t column = int64_t{blockIdx.x} % tiles_across(v) * kTileColumns + threadIdx.x;
  if (column < v.columns) atomicMax(v.amax + column, largest);
}

template <class T, int kWide>
__global__ void amax_of_all_kernel(Float8View v) {
  __shared__ uint32_t of_warps[kWarps];
  const Place place(v);
  const Rows<T, kWide> x(v, place);
  uint32_t largest = 0;
  for (int i = 0; i < kWarpRows; ++i)
    for (int k = 0; k < kLaneColumns; ++k) largest = larger(largest, magnitude(x(i, k)));
  largest = warp_larger(largest);
  if (lane() == 0) of_warps[threadIdx.x / kWarp] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 0; warp < kWarps; ++warp) largest = larger(largest, of_warps[warp]);
  // Most blocks find a larger one there, and need not queue for the one address.
  if (largest > *static_cast<const volatile uint32_t*>(v.amax)) atomicMax(v.amax, largest);
}

__global__ void scales_kernel(Float8View v, int64_t count) {
  const int64_t i = thread_number();
  if (i >= count) return;
  v.scales[i] = float8_scale(float_of_bits(v.amax[i]), v.e5m2, v.by_row);
  v.inverse_scales[i] = 1.0f / v.scales[i];
}

__device__ inline void store_word(uint8_t* to, uint32_t codes) {
  *reinterpret_cast<uint32_t*>(to) = codes;
}

template <class T, int kWide>
__global__ void codes_kernel(Float8View v) {
  const Place place(v);
  const Rows<T, kWide> x(v, place);
  float scales[kWarpRows];
  for (int i = 0; i < kWarpRows; ++i)
    scales[i] = v.scales[v.by_row && i < place.rows ? place.first_row + i : 0];
  if (place.first_column >= v.padded) return;
  uint8_t* codes = v.codes + place.first_row * v.padded + place.first_column;
  for (int i = 0; i < kWarpRows; ++i) {
    if (i >= place.rows) break;
    float scaled[kLaneColumns];
    for (int k = 0; k < kLaneColumns; ++k)
      scaled[k] = k < place.columns ? x(i, k) * scales[i] : 0.0f;
    store_word(codes + i * v.padded, four_float8_codes(scaled, v.e5m2));
  }
}

// A row of `turned` is a column of the tile. They stand in such an order, and so far apart, that
// lanes write to different banks.
template <class T, int kWide>
__global__ void turned_codes_kernel(Float8View v) {
  __shared__ uint32_t turned[kTileColumns][kTileRows / kWord + 1];
  const Place place(v);
  const Rows<T, kWide> x(v, place);
  float scales[kLaneColumns];
  for (int k = 0; k < kLaneColumns; ++k)
    scales[k] = v.scales[v.by_row && k < place.columns ? place.first_column + k : 0];
  TEMPER_UNROLL for (int k = 0; k < kLaneColumns; ++k) {
    TEMPER_UNROLL for (int i = 0; i < kWarpRows; i += kWord) {
      float scaled[kWord];
      for (int j = 0; j < kWord; ++j)
        scaled[j] = i + j < place.rows ? x(i + j, k) * scales[k] : 0.0f;
      turned[k * kWarp + lane()][(place.warp_row + i) / kWord] = four_float8_codes(scaled, v.e5m2);
    }
  }
  __syncthreads();
  const int64_t tile_row = place.first_row - place.warp_row;
  const int64_t tile_column = place.first_column - place.lane_column;
  constexpr int kWords = kTileRows / kWord;
  for (int i = static_cast<int>(threadIdx.x); i < kTileColumns * kWords; i += kThreads) {
    const int at = i / kWords, word = i % kWords;
    const int64_t column = tile_column + at % kWarp * kLaneColumns + at / kWarp;
    const int64_t row = tile_row + word * kWord;
    if (column >= v.columns || row >= v.padded) continue;
    store_word(v.codes + column * v.padded + row, turned[at][word]);
  }
}

template <class T, class F>
int with_lane_width(const Float8View& v, F&& f) {
  const auto address = reinterpret_cast<uintptr_t>(v.from);
  const bool together = address % (kLaneColumns * sizeof(T)) == 0 && v.stride % kLaneColumns == 0 &&
                        v.columns % kLaneColumns == 0;
  return together ? f(Width<kLaneColumns>{}) : f(Width<1>{});
}

}  // namespace

int to_float8(Element type, const Float8View& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_lane_width<T>(v, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      const int64_t scales = !v.by_row ? 1 : v.transposed ? v.columns : v.rows;
      const auto amax = !v.by_row     ? amax_of_all_kernel<T, kWide>
                        : v.transposed ? amax_of_columns_kernel<T, kWide>
                                       : amax_of_rows_kernel<T, kWide>;
      const int error = launch(amax, tiles(v), stream, v);
      if (error != 0) return error;
      const int next = launch(scales_kernel, blocks_of(scales), stream, v, scales);
      if (next != 0) return next;
      const auto codes = v.transposed ? turned_codes_kernel<T, kWide> : codes_kernel<T, kWide>;
      return launch(codes, tiles(v), stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
