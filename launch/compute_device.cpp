#include "launch/compute_device.h"

#include <utility>

#include "parallel/device.h"
#include "parallel/paired_communicator.h"
#include "parallel/plugin.h"
#include "trainer/ops/device.h"

namespace temper::launch {

ComputeDevice open_device(parallel::Session& session, recipes::Device wanted, bool deterministic) {
  const parallel::DeviceChoice choice = parallel::choose_device(wanted, session);
  ComputeDevice opened;
  if (choice.index) {
    opened.device = trainer::use_cuda(*choice.index, deterministic);
    opened.statement = "train.device = \"auto\": CUDA";
  } else {
    opened.statement = "train.device = \"auto\": the CPU (" + choice.why_not + ")";
  }
  if (wanted != recipes::Device::kAuto) opened.statement.clear();
  return opened;
}

std::unique_ptr<parallel::Communicator> open_communicator(parallel::Session& session,
                                                          double timeout_seconds,
                                                          at::Device device) {
  std::unique_ptr<parallel::Communicator> host = session.communicator(timeout_seconds);
  if (device.is_cpu() || host->size() == 1) return host;
  std::unique_ptr<parallel::Communicator> tensors = parallel::cuda_plugin().make_communicator(
      *host, device.index(), parallel::name_of(session.world()), timeout_seconds);
  return parallel::make_paired_communicator(std::move(host), std::move(tensors));
}

}  // namespace temper::launch
