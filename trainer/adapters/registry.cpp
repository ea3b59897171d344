#include <array>

#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter.h"
#include "trainer/adapters/methods.h"

namespace temper::trainer {

namespace {

struct Row {
  const char* method;  // peft.method
  std::unique_ptr<LinearAdapter> (*build)(const recipes::Peft&, const LinearSite&, AdapterTensors&);
};

// LoRA is not here: it joins the projection's own node (adapters.cpp).
constexpr std::array<Row, 7> kMethods = {{
    {"adalora", build_adalora},
    {"boft", build_boft},
    {"ia3", build_ia3},
    {"loha", build_loha},
    {"lokr", build_lokr},
    {"oft", build_oft},
    {"vera", build_vera},
}};

}  // namespace

std::unique_ptr<LinearAdapter> build_adapter(const recipes::Peft& peft, const LinearSite& site,
                                             AdapterTensors& tensors) {
  for (const Row& row : kMethods) {
    if (peft.method == row.method) return row.build(peft, site, tensors);
  }
  throw UserError("peft.method = \"" + peft.method + "\": does not adapt linear layers");
}

}  // namespace temper::trainer
