#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "parallel/store/exchange.h"

namespace temper::parallel {

/// Collectives for CPU tensors over all ranks of `exchange`, for what is small (exchange.h says
/// why): sums of metrics, NCCL's id, who is there. Sums are in the order of ranks. Calls that only
/// move bytes take any dtype. A result is there after wait(), never before. `id`, the same on all
/// ranks and of this communicator alone, begins its keys.
std::unique_ptr<Communicator> make_store_communicator(std::shared_ptr<StoreExchange> exchange,
                                                      const std::string& id,
                                                      const std::string& name,
                                                      double timeout_seconds);

}  // namespace temper::parallel
