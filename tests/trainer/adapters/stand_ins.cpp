// What other files of trainer/adapters define; linked into these tests until they are there.
#include <ATen/ATen.h>

#include "trainer/adapters/adapter.h"
#include "trainer/adapters/targets.h"

namespace temper::trainer {

int64_t pattern_value(const std::map<std::string, int64_t>& patterns, const std::string& module,
                      int64_t otherwise) {
  const auto found = patterns.find(module);
  return found == patterns.end() ? otherwise : found->second;
}

at::Tensor adapter_dropout(const at::Tensor& x, double, const std::string&, const AdapterContext&) {
  return x;
}

}  // namespace temper::trainer
