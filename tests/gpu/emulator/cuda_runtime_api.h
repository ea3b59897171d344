#pragma once

// A device of one core, on the host: the kernels' files compiled as C++ against this header run
// block by block, each thread a fibre that yields at barriers and shuffles. What it finds: wrong
// indices, missing threads at a barrier, sums that are not what they should be. What it cannot
// find: races, and anything a real device does differently. `order` turned round runs the threads
// of a block from the last to the first, so that a missing barrier between two of them is seen in
// one order or the other.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct Index {
  unsigned x = 0;
};
inline Index threadIdx, blockIdx, gridDim;

namespace emulator {

inline constexpr int kLanes = 32;
inline bool backwards = false;

enum class State { kRunning, kAtWarp, kAtBlock, kDone };

// A fibre begins as a context, runs kernel after kernel, and is gone on with by _longjmp, which
// asks nothing of the system.
struct Fibre {
  ucontext_t context{};
  jmp_buf at{};
  bool begun = false;
  std::vector<char> stack = std::vector<char>(256 << 10);
  State state = State::kDone;
  std::array<uint64_t, 2> exchanged{};  // by turns: who writes one again has seen all read it
  size_t turn = 0;
};

struct Machine {
  jmp_buf at{};
  std::vector<Fibre> fibres;
  std::function<void()> kernel;
};
inline Machine machine;

// Told before and after each launch, where memory of the device is no memory of the host
// (memory.h).
inline void (*opens)(bool) = nullptr;
// Told of each launch, which `again` makes once more (recording.h).
inline void (*launched)(const std::function<void()>& again) = nullptr;

inline void wait(State at) {
  Fibre& fibre = machine.fibres[threadIdx.x];
  fibre.state = at;
  if (_setjmp(fibre.at) == 0) _longjmp(machine.at, 1);
}

inline void body() {
  for (;;) {
    machine.kernel();
    wait(State::kDone);
  }
}

// Until the fibre waits or is done.
inline void go_on(Fibre& fibre) {
  if (_setjmp(machine.at) != 0) return;
  if (fibre.begun) _longjmp(fibre.at, 1);
  fibre.begun = true;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.data();
  // Ends of stacks that lie alike would share few lines of the cache.
  fibre.context.uc_stack.ss_size = fibre.stack.size() - threadIdx.x % 64 * 832;
  makecontext(&fibre.context, body, 0);
  setcontext(&fibre.context);
}

// All threads first..last that are not done wait at `state`; then they go on.
inline bool release(size_t first, size_t last, State state) {
  bool any = false;
  for (size_t t = first; t < last; ++t) {
    if (machine.fibres[t].state == State::kDone) continue;
    if (machine.fibres[t].state != state) return false;
    any = true;
  }
  for (size_t t = first; any && t < last; ++t) {
    if (machine.fibres[t].state != State::kDone) machine.fibres[t].state = State::kRunning;
  }
  return any;
}

inline void run_block(size_t threads) {
  for (size_t t = 0; t < threads; ++t) {
    machine.fibres[t].state = State::kRunning;
    machine.fibres[t].turn = 0;
  }
  for (bool going = true; going;) {
    for (size_t i = 0; i < threads; ++i) {
      const size_t t = backwards ? threads - 1 - i : i;
      if (machine.fibres[t].state != State::kRunning) continue;
      threadIdx.x = static_cast<unsigned>(t);
      go_on(machine.fibres[t]);
    }
    going = false;
    for (size_t warp = 0; warp < threads; warp += kLanes)
      going = release(warp, warp + kLanes, State::kAtWarp) || going;
    going = going || release(0, threads, State::kAtBlock);
  }
  for (size_t t = 0; t < threads; ++t) {
    if (machine.fibres[t].state == State::kDone) continue;
    std::fprintf(stderr, "block %u: thread %zu waits for threads that never come\n", blockIdx.x, t);
    std::abort();
  }
}

inline void run(int64_t blocks, int threads, const std::function<void()>& kernel) {
  if (machine.fibres.size() < static_cast<size_t>(threads))
    machine.fibres.resize(static_cast<size_t>(threads));
  machine.kernel = kernel;
  gridDim.x = static_cast<unsigned>(blocks);
  if (opens != nullptr) opens(true);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    run_block(static_cast<size_t>(threads));
  }
  if (opens != nullptr) opens(false);
}

template <class Kernel>
int launch(int64_t blocks, int threads, Kernel kernel) {
  const std::function<void()> all = [=] { run(blocks, threads, kernel); };
  all();
  if (launched != nullptr) launched(all);
  return 0;
}

template <class T>
T exchange(T value, unsigned from_lane) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Fibre& own = machine.fibres[threadIdx.x];
  Fibre& other = machine.fibres[threadIdx.x / kLanes * kLanes + from_lane];
  if (other.state == State::kDone) {
    std::fprintf(stderr, "a shuffle of thread %u asks lane %u, which has left\n", threadIdx.x,
                 from_lane);
    std::abort();
  }
  const size_t turn = own.turn++ % 2;
  std::memcpy(&own.exchanged[turn], &value, sizeof value);
  wait(State::kAtWarp);
  T result;
  std::memcpy(&result, &other.exchanged[turn], sizeof result);
  return result;
}

}  // namespace emulator

inline float __fdividef(float x, float y) { return x / y; }
inline unsigned atomicOr(unsigned* to, unsigned bits) {
  const unsigned before = *to;
  *to |= bits;
  return before;
}
inline void __syncthreads() { emulator::wait(emulator::State::kAtBlock); }
inline void __syncwarp() { emulator::wait(emulator::State::kAtWarp); }
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned before = *at;
  if (value > before) *at = value;
  return before;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int with) {
  return emulator::exchange(value, threadIdx.x % 32u ^ static_cast<unsigned>(with));
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return emulator::exchange(value, static_cast<unsigned>(from));
}
template <class T>
T __shfl_down_sync(unsigned, T value, int by) {
  const unsigned lane = threadIdx.x % 32u;
  const unsigned from = lane + static_cast<unsigned>(by);
  return emulator::exchange(value, from < 32 ? from : lane);
}
