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

  __device__ explicit Place(const Float8View& v)
      : warp_row(static_cast<int>(threadIdx.x) / kWarp * kWarpRows),
        lane_column(lane() * kLaneColumns) {
    const int64_t tile = blockIdx.x;
    first_row = tile / tiles_across(v) * kTileRows + warp_row;
    first_column = tile % tiles_across(v) * kTileColumns + lane_column;
  }
};

// Zeros outside of the matrix.
template <class T, int kWide>
__device__ void load(const Float8View& v, int64_t row, int64_t column, float* to) {
  const T* from = static_cast<const T*>(v.from) + row * v.stride + column;
  for (int k = 0; k < kLaneColumns; k += kWide) {
    const bool there = row < v.rows && column + k < v.columns;
    const auto pack = there ? load_pack<kWide>(from + k) : Pack<T, kWide>{};
    for (int i = 0; i < kWide; ++i) to[k + i] = widened(pack.at[i]);
  }
}

// Magnitudes are compared as bits, in which NaN is above all.
__device__ inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
__device__ inline uint32_t warp_larger(uint32_t x) {
  for (int width = kWarp / 2; width > 0; width /= 2)
    x = larger(x, __shfl_xor_sync(kAllLanes, x, width));
  return x;
}

template <class T, int kWide>
__global__ void amax_kernel(Float8View v) {
  __shared__ uint32_t of_warps[kWarps][kTileColumns];
  const Place place(v);
  const bool of_rows = v.by_row && !v.transposed;
  uint32_t of_columns[kLaneColumns] = {};
  for (int i = 0; i < kWarpRows; ++i) {
    float x[kLaneColumns];
    load<T, kWide>(v, place.first_row + i, place.first_column, x);
    uint32_t of_row = 0;
    for (int k = 0; k < kLaneColumns; ++k) {
      const uint32_t magnitude = bits_of_float(x[k]) & 0x7fffffffu;
      of_columns[k] = larger(of_columns[k], magnitude);
      of_row = larger(of_row, magnitude);
    }
    if (!of_rows) continue;
    of_row = warp_larger(of_row);
    if (lane() == 0 && place.first_row + i < v.rows) atomicMax(v.amax + place.first_row + i, of_row);
  }
  if (of_rows) return;
  for (int k = 0; k < kLaneColumns; ++k) {
    of_warps[threadIdx.x / kWarp][place.lane_column + k] = of_columns[k];
  }
  __syncthreads();
  if (threadIdx.x >= kTileColumns) return;
  uint32_t largest = 0;
  for (int warp = 0; warp < kWarps; ++warp) largest = larger(largest, of_warps[warp][threadIdx.x]);
  const int64_t column = int64_t{blockIdx.x} % tiles_across(v) * kTileColumns + threadIdx.x;
  if (v.by_row) {
    if (column < v.columns) atomicMax(v.amax + column, largest);
    return;
  }
  largest = warp_larger(largest);
  if (lane() == 0) atomicMax(v.amax, largest);
}

__global__ void scales_kernel(Float8View v, int64_t count) {
  const int64_t i = thread_number();
  if (i >= count) return;
  v.scales[i] = float8_scale(float_of_bits(v.amax[i]), v.e5m2, v.by_row);
  v.inverse_scales[i] = 1.0f / v.scales[i];
}

template <class T, int kWide>
__global__ void codes_kernel(Float8View v) {
  alignas(kLaneColumns) __shared__ uint8_t turned[kTileColumns][kTileRows + kLaneColumns];
  const Place place(v);
  float scales[kLaneColumns];
  for (int k = 0; k < kLaneColumns; ++k) {
    const int64_t column = place.first_column + k;
    const bool own = v.by_row && v.transposed && column < v.columns;
    scales[k] = v.scales[own ? column : 0];
  }
  for (int i = 0; i < kWarpRows; ++i) {
    const int64_t row = place.first_row + i;
    float x[kLaneColumns];
    load<T, kWide>(v, row, place.first_column, x);
    const bool of_row = v.by_row && !v.transposed && row < v.rows;
    alignas(kLaneColumns) uint8_t codes[kLaneColumns];
    for (int k = 0; k < kLaneColumns; ++k) {
      const bool there = row < v.rows && place.first_column + k < v.columns;
      const float scale = of_row ? v.scales[row] : scales[k];
      codes[k] = there ? float8_code(x[k] * scale, v.e5m2) : 0;
      if (v.transposed) turned[place.lane_column + k][place.warp_row + i] = codes[k];
    }
    if (v.transposed || row >= v.rows || place.first_column >= v.padded) continue;
    store_pack(v.codes + row * v.padded + place.first_column, load_pack<kLaneColumns>(codes));
  }
  if (!v.transposed) return;
  __syncthreads();
  const int64_t tile_row = place.first_row - place.warp_row;
  const int64_t tile_column = place.first_column - place.lane_column;
  constexpr int kPacks = kTileRows / kLaneColumns;
  for (int i = static_cast<int>(threadIdx.x); i < kTileColumns * kPacks; i += kThreads) {
    const int64_t column = tile_column + i / kPacks;
    const int row = i % kPacks * kLaneColumns;
    if (column >= v.columns || tile_row + row >= v.padded) continue;
    store_pack(v.codes + column * v.padded + tile_row + row,
               load_pack<kLaneColumns>(&turned[i / kPacks][row]));
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
      const int error = launch(amax_kernel<T, kWide>, tiles(v), stream, v);
      if (error != 0) return error;
      const int next = launch(scales_kernel, blocks_of(scales), stream, v, scales);
      return next != 0 ? next : launch(codes_kernel<T, kWide>, tiles(v), stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
