#include "trainer/device_rules.h"

#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {

void check_device_does(const recipes::Recipe& recipe, at::Device device) {
  if (device.is_cpu()) return;
  std::vector<std::string> findings;
  const auto refuse = [&](const std::string& what, const std::string& mend) {
    findings.push_back(what + ": not on a CUDA device: " + mend +
                       ", or compute on the CPU (train.device = \"cpu\")");
  };
  if (recipe.run.deterministic == recipes::Deterministic::kLayout) {
    refuse("run.deterministic = \"layout\"", "use true (the same layout gives the same bits)");
  }
  if (recipe.generation.exact) refuse("generation.exact = true", "use false");
  if (recipe.parallel.backend == recipes::Backend::kMpi) {
    refuse("parallel.backend = \"mpi\"", "use \"auto\" (NCCL)");
  }
  if (!findings.empty()) throw UserError(findings);
}

}  // namespace temper::trainer
