#include "trainer/step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/mpi_main.h"

namespace temper::trainer {
namespace {

// An objective of which only the names of its metrics are wanted.
struct Named : Objective {
  std::vector<std::string> metric_names() const override {
    return {"accuracy", "ratio/min", "ratio/max", "never/max"};
  }
  LossTerms loss(Model&, const data::Batch&) override { return {}; }
  double count(const data::Batch&) const override { return 0; }
};

// A micro-batch whose ratios reach from `least` to `most`.
LossTerms terms(double least, double most) {
  return {.sum = at::ones({}),
          .count = 2,
          .metrics = {{"accuracy", 1.0, 2.0}, {"ratio/min", least, 1.0}, {"ratio/max", most, 1.0}, {"never/max"}}};
}

double value(const StepSums& sums, size_t metric) {
  return sums.metrics.at(metric).numerator / sums.metrics.at(metric).denominator;
}

TEST(Step, ExtremesAreThoseOfAllMicroBatches) {
  StepSums sums = zero_sums(Named());
  for (const auto& [least, most] : {std::pair(-0.5, 1.0), {-2.0, -1.0}, {3.0, 4.0}}) add_terms(sums, terms(least, most));
  EXPECT_EQ(value(sums, 0), 0.5);
  EXPECT_EQ(value(sums, 1), -2);
  EXPECT_EQ(value(sums, 2), 4);
  EXPECT_EQ(sums.metrics[3].denominator, 0);
}

TEST(Step, AnExtremeOnOneSideOfZeroIsNotZero) {
  StepSums sums = zero_sums(Named());
  add_terms(sums, terms(2, -2));
  EXPECT_EQ(value(sums, 1), 2);
  EXPECT_EQ(value(sums, 2), -2);
}

TEST(Step, NumbersThatComeLateAreThoseOfTheirMetrics) {
  const auto late = [](double number) { return at::scalar_tensor(number, at::kDouble); };
  StepSums sums = zero_sums(Named());
  std::vector<LossTerms> all = {terms(-9, 1), terms(-9, 2)};
  all[0].metrics[0] = {"accuracy", late(0.25), late(5)};
  all[0].metrics[1].numerator = late(-3);
  all[1].metrics[0].numerator = late(0.5);
  all[1].metrics[1].numerator = late(-2);
  add_terms(sums, all);
  EXPECT_EQ(sums.loss, 2);
  EXPECT_EQ(sums.metrics[0].numerator, 0.75);
  EXPECT_EQ(sums.metrics[0].denominator, 7);
  EXPECT_EQ(value(sums, 1), -3);
  EXPECT_EQ(value(sums, 2), 2);
}

TEST(Step, RanksExchangeSumsAndExtremesAlsoWithOneThatHasNoRows) {
  parallel::Communicator& group = parallel::test_group();
  StepSums sums = zero_sums(Named());
  if (group.rank() != 0) {  // rank 0 has nothing
    add_terms(sums, terms(0.5 + group.rank(), 1.5 + group.rank()));
    add_terms(sums, terms(0.75 + group.rank(), 1.75 + group.rank()));
  }
  exchange(sums, group);
  const double others = group.size() - 1;
  EXPECT_EQ(sums.loss, 2 * others);
  EXPECT_EQ(sums.metrics[0].denominator, 4 * others);
  EXPECT_EQ(value(sums, 0), 0.5);
  EXPECT_EQ(value(sums, 1), 1.5);
  EXPECT_EQ(value(sums, 2), 1.75 + others);
  EXPECT_EQ(sums.metrics[3].denominator, 0);
}

}  // namespace
}  // namespace temper::trainer
