#include "trainer/failure.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "parallel/collective_timeout.h"
#include "recipes/diagnostic.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::trainer {

namespace {

bool finite(const at::Tensor& tensor) { return !tensor.defined() || at::isfinite(tensor).all().item<bool>(); }

// failure/step-000123-rank-00001.json; returns the folder.
std::string write_failure(const Run& run, const RunDirectory& directory, int64_t step, const data::Json& dump) {
  char name[64];
  std::snprintf(name, sizeof name, "step-%06lld-rank-%05d.json", static_cast<long long>(step), run.world.rank);
  const std::filesystem::path folder = directory.path / "failure";
  std::filesystem::create_directories(folder);
  data::write_file_atomically(folder / name, data::dump_json(dump));
  return folder.string();
}

}  // namespace

std::string dump_failure(Run& run, const RunDirectory& directory, int64_t step, const StepSums& sums, double grad_norm,
                         int64_t overflows) {
  // `sums` holds the sums of all ranks; each rank's own verdict is gathered to name the ranks.
  at::Tensor own = at::full({1}, sums.own_not_finite, at::kDouble);
  at::Tensor all = at::empty({run.world.size}, at::kDouble);
  run.communicator->all_gather(all, own)->wait();
  std::vector<std::string> ranks;
  for (int64_t rank = 0; rank < run.world.size; ++rank) {
    if (all[rank].item<double>() > 0) ranks.push_back(std::to_string(rank));
  }

  data::Json dump = {{"step", step},
                     {"rank", run.world.rank},
                     {"host", run.world.host},
                     {"loss_sum_of_all_ranks", std::isfinite(sums.loss) ? data::Json(sums.loss) : data::Json("not finite")},
                     {"count", sums.count},
                     {"grad_norm", std::isfinite(grad_norm) ? data::Json(grad_norm) : data::Json("not finite")},
                     {"loss_of_this_rank_is_finite", sums.own_not_finite == 0},
                     {"weights_not_finite", data::Json::array()},
                     {"gradients_not_finite", data::Json::array()}};
  for (const Parameter& parameter : run.sharded ? run.sharded->pieces() : run.model->parameters()) {
    if (!finite(parameter.master)) dump["weights_not_finite"].push_back(parameter.name);
    if (!finite(parameter.value.grad())) dump["gradients_not_finite"].push_back(parameter.name);
  }
  const std::string folder = write_failure(run, directory, step, dump);
  if (overflows > 0) {
    return "step " + std::to_string(step) + ": " + std::to_string(overflows) +
           " steps in a row have overflowed in fp16, whatever the loss scale: use train.precision = \"bf16\"; state in " + folder +
           "; the last complete checkpoint is intact";
  }

  const std::string what = ranks.empty() ? "the gradient is not finite (the loss is)"
                                         : "the loss is not finite on rank" + std::string(ranks.size() > 1 ? "s " : " ") + join(ranks);
  return "step " + std::to_string(step) + ": " + what + "; state in " + folder +
         "; the last complete checkpoint is intact (lower optimizer.lr, or train.on_nan = \"skip\" passes over such steps)";
}

std::string dump_hang(const Run& run, const RunDirectory& directory, int64_t step, const parallel::CollectiveTimeout& hang) {
  const std::string folder = write_failure(run, directory, step,
                                           {{"step", step},
                                            {"rank", run.world.rank},
                                            {"host", run.world.host},
                                            {"hang", hang.what()},
                                            {"last_collectives", hang.recent()}});
  return std::string(hang.what()) + "; step " + std::to_string(step) + ", last collectives in " + folder;
}

}  // namespace temper::trainer
