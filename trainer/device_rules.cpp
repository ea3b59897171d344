#include "trainer/device_rules.h"

#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {

void check_device_does(const recipes::Recipe& recipe, at::Device device,
                       int compute_capability) {
  std::vector<std::string> findings;
  if (device.is_cpu()) {
    if (recipe.train.device != recipes::Device::kAuto) return;
    if (recipe.train.cuda_graphs) {
      findings.push_back("train.cuda_graphs = true: the device is the CPU: must be false");
    }
    if (recipe.parallel.backend == recipes::Backend::kNccl) {
      findings.push_back("parallel.backend = \"nccl\": the device is the CPU: must be \"auto\" or \"mpi\"");
    }
    if (!findings.empty()) throw UserError(findings);
    return;
  }
  const auto refuse = [&](const std::string& what, const std::string& mend) {
    findings.push_back(what + ": not on a CUDA device: " + mend +
                       ", or compute on the CPU (train.device = \"cpu\")");
  };
  if (recipe.run.deterministic == recipes::Deterministic::kLayout) {
    refuse("run.deterministic = \"layout\"", "use true (the same layout gives the same bits)");
  }
  if (recipe.generation.exact) refuse("generation.exact = true", "use false");
  if (recipe.parallel.backend == recipes::Backend::kMpi) {
    refuse("parallel.backend = \"mpi\"", "use \"auto\" or \"nccl\"");
  }
  if (recipe.train.float8 != recipes::Float8::kNone && compute_capability < 89) {
    findings.push_back("train.float8: needs a device of compute capability 8.9 or above, not " +
                       std::to_string(compute_capability / 10) + "." +
                       std::to_string(compute_capability % 10) +
                       ": use \"none\", or try the recipe on the CPU (train.device = \"cpu\")");
  }
  if (!findings.empty()) throw UserError(findings);
}

}  // namespace temper::trainer
