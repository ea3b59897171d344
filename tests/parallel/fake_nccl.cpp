#include "tests/parallel/fake_nccl.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

namespace {

/// Work that has been enqueued; kept by those who wait for it.
struct Task {
  bool done = false;
};
using TaskPtr = std::shared_ptr<Task>;
using Tasks = std::set<TaskPtr>;

struct Part {
  const char* from;
  char* to;
};

/// One exchange: what each rank has brought, and what is done with it when all have.
struct Exchange {
  std::map<int, Part> parts;
  TaskPtr task = std::make_shared<Task>();
};

/// The ranks of one communicator.
struct Clique {
  int size = 0;
  int joined = 0;
  std::map<int64_t, Exchange> exchanges;                                 // by number
  std::map<std::pair<std::pair<int, int>, int64_t>, Exchange> messages;  // sender, receiver; number
};
using CliquePtr = std::shared_ptr<Clique>;

}  // namespace

struct ncclComm {
  int rank = 0;
  CliquePtr clique;
  int64_t exchanges = 0;
  std::map<std::pair<int, int>, int64_t> messages;
  std::map<void*, size_t> memory;  // registered: where it begins, its bytes
  // A split under way: what this rank wants, and where its new communicator goes.
  ncclComm* child = nullptr;
  int color = 0, key = 0;
};

namespace {

std::mutex mutex;
std::map<std::string, CliquePtr> cliques;  // by unique id
std::set<ncclComm_t> alive;
std::map<int, std::pair<ncclResult_t, std::string>> failures;
std::map<int, ncclResult_t> refusals;
std::set<int> without_memory;
bool stalled = false;
int64_t ids = 0, aborted = 0, registered_ever = 0;
int expected_device = 0;
thread_local int current_device = 0;
thread_local std::string last_error;

std::map<cudaStream_t, Tasks> streams;
thread_local Tasks default_stream;  // each rank has a device of its own
std::map<cudaEvent_t, Tasks> recorded;
int64_t handles = 0;

[[noreturn]] void undefined(const char* why) {
  std::fprintf(stderr, "fake NCCL: %s\n", why);
  std::abort();
}

bool ready(const ncclComm& comm) {
  return comm.clique && comm.clique->joined == comm.clique->size && comm.child == nullptr;
}

void check(ncclComm_t comm) {
  if (alive.count(comm) == 0) undefined("a communicator that is no more");
  if (!ready(*comm)) undefined("a communicator that is not ready");
  if (current_device != expected_device) undefined("another device is current");
}

Tasks& tasks_of(cudaStream_t stream) {
  return stream == nullptr ? default_stream : streams[stream];
}

/// Enters `part` and runs `act` when `ranks` have.
ncclResult_t enter(Exchange& exchange, int rank, size_t ranks, Part part, cudaStream_t stream,
                   const std::function<void(std::map<int, Part>&)>& act) {
  exchange.parts[rank] = part;
  if (exchange.parts.size() == ranks && !stalled) {
    act(exchange.parts);
    exchange.task->done = true;
  }
  tasks_of(stream).insert(exchange.task);
  return ncclSuccess;
}

using Act = std::function<void(std::map<int, Part>&)>;

ncclResult_t collective(ncclComm_t comm, const void* from, void* to, cudaStream_t stream,
                        const Act& act) {
  const std::lock_guard lock(mutex);
  check(comm);
  if (const auto refusal = refusals.find(comm->rank); refusal != refusals.end()) {
    const ncclResult_t error = refusal->second;
    refusals.erase(refusal);
    return error;
  }
  Clique& clique = *comm->clique;
  return enter(clique.exchanges[comm->exchanges++], comm->rank, clique.size,
               {static_cast<const char*>(from), static_cast<char*>(to)}, stream, act);
}

template <class T>
void reduce(std::map<int, Part>& parts, size_t first, size_t count, ncclRedOp_t op, T* result) {
  for (size_t i = 0; i < count; ++i) {
    T value = reinterpret_cast<const T*>(parts[0].from)[first + i];
    for (size_t rank = 1; rank < parts.size(); ++rank) {
      const T other = reinterpret_cast<const T*>(parts[static_cast<int>(rank)].from)[first + i];
      value = op == ncclSum   ? static_cast<T>(value + other)
              : op == ncclMax ? std::max(value, other)
                              : std::min(value, other);
    }
    result[i] = value;
  }
}

/// The reduction of elements [first, first + count) of all parts.
std::vector<char> reduced(std::map<int, Part>& parts, size_t first, size_t count,
                          ncclDataType_t type, ncclRedOp_t op) {
  std::vector<char> bytes(count * 8);
  const auto as = [&](auto zero) {
    reduce(parts, first, count, op, reinterpret_cast<decltype(zero)*>(bytes.data()));
    bytes.resize(count * sizeof(zero));
  };
  switch (type) {
    case ncclFloat32:
      as(float{});
      break;
    case ncclFloat64:
      as(double{});
      break;
    case ncclInt32:
      as(int32_t{});
      break;
    case ncclInt64:
      as(int64_t{});
      break;
    case ncclUint8:
      as(uint8_t{});
      break;
    default:
      undefined("a type that nobody adds here");
  }
  return bytes;
}

void check_bytes(ncclDataType_t type) {
  if (type != ncclUint8) undefined("bytes are moved as bytes");
}

/// Once all ranks of `parent` want to split: their new communicators' cliques.
void finish_split(const CliquePtr& parent) {
  std::vector<ncclComm_t> members;
  for (const ncclComm_t comm : alive) {
    if (comm->clique == parent && comm->child != nullptr) members.push_back(comm);
  }
  if (static_cast<int>(members.size()) < parent->size) return;
  std::sort(members.begin(), members.end(), [](ncclComm_t a, ncclComm_t b) {
    return std::tie(a->key, a->rank) < std::tie(b->key, b->rank);
  });
  std::map<int, CliquePtr> parts;
  for (const ncclComm_t comm : members) {
    CliquePtr& part = parts[comm->color];
    if (!part) part = std::make_shared<Clique>();
    comm->child->rank = part->size++;
    ++part->joined;
    std::exchange(comm->child, nullptr)->clique = part;
  }
}

}  // namespace

namespace fake_nccl {

void reset() {
  const std::lock_guard lock(mutex);
  if (!alive.empty()) undefined("communicators are alive");
  cliques.clear();
  failures.clear();
  refusals.clear();
  without_memory.clear();
  stalled = false;
  aborted = registered_ever = 0;
  expected_device = 0;
}

void fail_later(int rank, ncclResult_t error, const std::string& detail) {
  const std::lock_guard lock(mutex);
  failures[rank] = {error, detail};
}

void refuse(int rank, ncclResult_t error) {
  const std::lock_guard lock(mutex);
  refusals[rank] = error;
}

void stall() {
  const std::lock_guard lock(mutex);
  stalled = true;
}

void refuse_memory(int rank) {
  const std::lock_guard lock(mutex);
  without_memory.insert(rank);
}

int64_t registered() {
  const std::lock_guard lock(mutex);
  int64_t pieces = 0;
  for (const ncclComm_t comm : alive) pieces += static_cast<int64_t>(comm->memory.size());
  return pieces;
}

int64_t registrations() {
  const std::lock_guard lock(mutex);
  return registered_ever;
}

int64_t communicators() {
  const std::lock_guard lock(mutex);
  return static_cast<int64_t>(alive.size());
}

int64_t aborts() {
  const std::lock_guard lock(mutex);
  return aborted;
}

int64_t events() {
  const std::lock_guard lock(mutex);
  return static_cast<int64_t>(recorded.size());
}

void expect_device(int device) { expected_device = device; }

}  // namespace fake_nccl

extern "C" {

// ---- NCCL --------------------------------------------------------------------------------------

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(mutex);
  std::snprintf(id->internal, sizeof(id->internal), "clique %lld", static_cast<long long>(++ids));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const std::lock_guard lock(mutex);
  if (config->blocking != 0) undefined("a call that blocks cannot be given up");
  if (current_device != expected_device) undefined("another device is current");
  *comm = new ncclComm;
  alive.insert(*comm);
  CliquePtr& clique = cliques[id.internal];
  if (!clique) clique = std::make_shared<Clique>();
  clique->size = size;
  ++clique->joined;
  (*comm)->rank = rank;
  (*comm)->clique = clique;
  return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* child,
                           ncclConfig_t* config) {
  const std::lock_guard lock(mutex);
  check(comm);
  if (config->blocking != 0) undefined("a call that blocks cannot be given up");
  *child = new ncclComm;
  alive.insert(*child);
  comm->child = *child;
  comm->color = color;
  comm->key = key;
  finish_split(comm->clique);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(mutex);
  if (alive.count(comm) == 0) undefined("a communicator that is no more");
  const auto failure = failures.find(comm->rank);
  *error = failure != failures.end() ? failure->second.first
           : ready(*comm)            ? ncclSuccess
                                     : ncclInProgress;
  return ncclSuccess;
}

const char* ncclGetLastError(ncclComm_t comm) {
  const std::lock_guard lock(mutex);
  if (alive.count(comm) == 0) undefined("a communicator that is no more");
  const auto failure = failures.find(comm->rank);
  last_error = failure == failures.end() ? "" : failure->second.second;
  return last_error.c_str();
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "another error";
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const std::lock_guard lock(mutex);
  if (alive.erase(comm) == 0) undefined("a communicator that is no more");
  ++aborted;
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void* begin, size_t bytes, void** handle) {
  const std::lock_guard lock(mutex);
  check(comm);
  if (without_memory.count(comm->rank) > 0) return ncclInvalidUsage;
  if (!comm->memory.emplace(begin, bytes).second) undefined("memory that is registered twice");
  ++registered_ever;
  *handle = begin;
  return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void* handle) {
  const std::lock_guard lock(mutex);
  check(comm);
  if (comm->memory.erase(handle) == 0) undefined("memory that is not registered");
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  const std::lock_guard lock(mutex);
  check(comm);
  *rank = comm->rank;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  const std::lock_guard lock(mutex);
  check(comm);
  *count = comm->clique->size;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return collective(comm, from, to, stream, [=](std::map<int, Part>& parts) {
    const std::vector<char> result = reduced(parts, 0, count, type, op);
    for (auto& [rank, part] : parts) std::memcpy(part.to, result.data(), result.size());
  });
}

ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return collective(comm, from, to, stream, [=](std::map<int, Part>& parts) {
    for (auto& [rank, part] : parts) {
      const std::vector<char> result = reduced(parts, rank * count, count, type, op);
      std::memcpy(part.to, result.data(), result.size());
    }
  });
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  check_bytes(type);
  return collective(comm, from, to, stream, [=](std::map<int, Part>& parts) {
    for (auto& [rank, part] : parts) {
      for (auto& [other, theirs] : parts) std::memcpy(part.to + other * count, theirs.from, count);
    }
  });
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  check_bytes(type);
  return collective(comm, from, to, stream, [=](std::map<int, Part>& parts) {
    for (auto& [rank, part] : parts) {
      if (rank != root) std::memcpy(part.to, parts[root].from, count);
    }
  });
}

static ncclResult_t message(ncclComm_t comm, int sender, int receiver, Part part, size_t count,
                            ncclDataType_t type, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  check(comm);
  check_bytes(type);
  const std::pair<int, int> way(sender, receiver);
  // Of two calls on one way one is the sender's: a rank that sends to itself makes both.
  const int role = part.from != nullptr ? 0 : 1;
  const int64_t number = comm->messages[{2 * sender + role, receiver}]++;
  Exchange& exchange = comm->clique->messages[{way, number}];
  return enter(exchange, role, 2, part, stream, [count](std::map<int, Part>& parts) {
    std::memcpy(parts[1].to, parts[0].from, count);
  });
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return message(comm, comm->rank, peer, {static_cast<const char*>(from), nullptr}, count, type,
                 stream);
}

ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return message(comm, peer, comm->rank, {nullptr, static_cast<char*>(to)}, count, type, stream);
}

ncclResult_t ncclGroupStart() { return ncclSuccess; }
ncclResult_t ncclGroupEnd() { return ncclSuccess; }

// ---- the CUDA runtime --------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 2;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -1;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int, int) {
  const std::lock_guard lock(mutex);
  *stream = reinterpret_cast<cudaStream_t>(++handles << 4);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  const Tasks& tasks = tasks_of(stream);
  const bool done =
      std::all_of(tasks.begin(), tasks.end(), [](const TaskPtr& t) { return t->done; });
  return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  const std::lock_guard lock(mutex);
  *event = reinterpret_cast<cudaEvent_t>(++handles << 4);
  recorded[*event];
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  if (recorded.erase(event) == 0) undefined("an event that is no more");
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  recorded.at(event) = tasks_of(stream);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  const std::lock_guard lock(mutex);
  const Tasks& tasks = recorded.at(event);
  tasks_of(stream).insert(tasks.begin(), tasks.end());
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  const Tasks& tasks = recorded.at(event);
  const bool done =
      std::all_of(tasks.begin(), tasks.end(), [](const TaskPtr& t) { return t->done; });
  return done ? cudaSuccess : cudaErrorNotReady;
}

// What headers name and nobody calls here.
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "a CUDA error"; }
cudaError_t cudaDeviceSynchronize() { undefined("the device is awaited"); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { undefined("an event is awaited"); }
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t) { undefined("time"); }

}  // extern "C"
