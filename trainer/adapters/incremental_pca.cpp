#include "trainer/adapters/incremental_pca.h"

#include <cmath>
#include <tuple>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

constexpr uint64_t kSeed = 42;  // PEFT's
constexpr int kPowerIterations = 4;

class OneThread {
 public:
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int threads_ = at::get_num_threads();
};

at::Tensor orthonormal(const at::Tensor& matrix) { return std::get<0>(at::linalg_qr(matrix)); }

// Singular values and right singular vectors (as rows) of `matrix`, the `rank` largest or so.
std::pair<at::Tensor, at::Tensor> low_rank_svd(const at::Tensor& matrix, int64_t rank) {
  const bool wide = matrix.size(0) < matrix.size(1);
  const at::Tensor a = wide ? matrix.t() : matrix;
  const at::Generator generator = at::detail::createCPUGenerator(kSeed);
  const at::Tensor drawn = at::randn({a.size(1), rank}, generator, a.options());
  at::Tensor q = orthonormal(at::mm(a, drawn));
  for (int i = 0; i < kPowerIterations; ++i) {
    q = orthonormal(at::mm(a, orthonormal(at::mm(a.t(), q))));
  }
  const auto [u, s, vh] = at::linalg_svd(at::mm(q.t(), a), /*full_matrices=*/false);
  return {s, wide ? at::mm(q, u).t() : vh};
}

// Each direction's sign, by its largest element.
at::Tensor with_signs(const at::Tensor& vectors) {
  const at::Tensor largest = vectors.abs().argmax(1, /*keepdim=*/true);
  return vectors * vectors.gather(1, largest).sign();
}

}  // namespace

void IncrementalPca::add(at::Tensor x) {
  TEMPER_CHECK(x.size(0) >= directions_ && x.size(1) >= directions_,
               "as many directions as there are rows and columns, at most");
  const OneThread one_thread;
  const auto before = static_cast<double>(rows_), fresh = static_cast<double>(x.size(0));
  const double all = before + fresh;
  const at::Tensor sum = x.sum({0}, /*keepdim=*/false, at::kDouble);
  const at::Tensor from_mean = x - sum / fresh;
  const at::Tensor squares = from_mean.square().sum({0}, false, at::kDouble) -
                             from_mean.sum({0}, false, at::kDouble).square() / fresh;
  if (!begun()) {
    mean_ = sum / all;
    variance_ = squares / all;
    x = (x - mean_).to(at::kFloat);
  } else {
    const at::Tensor apart = mean_ - sum / fresh;
    variance_ = (variance_ * before + squares + apart.square() * (before * fresh / all)) / all;
    const at::Tensor batch_mean = x.mean({0});
    x = at::cat({singular_values_.unsqueeze(1) * components_, x - batch_mean,
                 ((mean_ - batch_mean) * std::sqrt(before / all * fresh)).unsqueeze(0)});
    mean_ = (mean_ * before + sum) / all;
  }
  rows_ += static_cast<int64_t>(fresh);
  const auto [s, vectors] = low_rank_svd(x, 2 * directions_);
  components_ = with_signs(vectors.narrow(0, 0, directions_));
  singular_values_ = s.narrow(0, 0, directions_);
  explained_ = singular_values_.square() / (variance_ * all).sum();
}

}  // namespace temper::trainer
