#include <array>

#include "recipes/diagnostic.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/optimizers/adamw_8bit.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/optimizers/sgd.h"

namespace temper::trainer {

namespace {

struct Row {
  const char* kind;  // optimizer.kind
  std::unique_ptr<Optimizer> (*build)(const recipes::Optimizer&, const std::vector<Parameter>&);
  const char* sentence;
};

constexpr std::array<Row, 4> kOptimizers = {{
    {"adamw", build_adamw, "Adam with decoupled weight decay (arXiv:1711.05101)"},
    {"adamw_8bit", build_adamw_8bit, "AdamW with moments in 8 bits (arXiv:2110.02861)"},
    {"paged_adamw_8bit", build_adamw_8bit,
     "adamw_8bit with states that a GPU may page out to the host"},
    {"sgd", build_sgd,
     "stochastic gradient descent, with momentum where optimizer.momentum is set"},
}};

}  // namespace

std::unique_ptr<Optimizer> build_optimizer(const recipes::Optimizer& optimizer,
                                           std::vector<Parameter>& parameters) {
  std::vector<std::string> kinds;
  std::string known;
  for (const Row& row : kOptimizers) {
    if (optimizer.kind == row.kind) return row.build(optimizer, parameters);
    kinds.emplace_back(row.kind);
    known += std::string(known.empty() ? "" : "; ") + row.kind + ": " + row.sentence;
  }
  const std::string nearest = nearest_name(optimizer.kind, kinds);
  throw UserError("optimizer.kind = \"" + optimizer.kind + "\": not known" +
                  (nearest.empty() ? "" : ", did you mean \"" + nearest + "\"?") + " (" + known +
                  ")");
}

}  // namespace temper::trainer
