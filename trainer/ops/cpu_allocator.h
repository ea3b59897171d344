#pragma once

#include <cstdint>

namespace temper::trainer {

/// From now on CPU tensors come from an allocator that keeps large blocks when they are freed and
/// hands them out again, on huge pages where the kernel lets it: a training step frees and takes
/// the same sizes over and over, and a fresh page costs a fault and a clearing (writing into fresh
/// memory above 32 MiB takes 4.8 times as long). Called once, before the first tensor; tensors made
/// earlier stay valid. Thread-safe.
void use_caching_cpu_allocator();

/// Gives the kept blocks back to the system: after loading, say, whose sizes no step asks for again.
/// Returns their bytes.
int64_t release_idle_cpu_memory();

}  // namespace temper::trainer
