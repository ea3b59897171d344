#include "trainer/metrics/progress.h"

#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

TEST(Progress, TheLineSaysStepLossRateMemoryAndTimeLeft) {
  ProgressNow now{.step = 120, .total = 2000, .loss = 2.34125};
  now.tokens_per_second = 12345;
  now.peak_memory_mib = 2150;
  now.seconds_left = 192;
  EXPECT_EQ(progress_text(now), "step 120/2000 6%  loss 2.341  12.3k tok/s  2.1 GiB  3m12s left");
  now.has_mfu = true;
  now.mfu = 0.412;
  now.tokens_per_second = 812;
  now.peak_memory_mib = 700;
  now.seconds_left = 7260;
  EXPECT_EQ(progress_text(now),
            "step 120/2000 6%  loss 2.341  812 tok/s  MFU 41%  700 MiB  2h01m left");
}

TEST(Progress, PlainLinesHoldEveryMetric) {
  EXPECT_EQ(
      metrics_text(10, 50, {{"loss", 2.34567}, {"num_tokens", 81920}, {"learning_rate", 2e-5}}),
      "step 10/50  loss 2.346  num_tokens 81920  learning_rate 2e-05");
}

TEST(Progress, PipedItPrintsAPlainLineForEachLineOfMetricsAndNothingElse) {
  testing::internal::CaptureStdout();
  {
    Progress progress(false);
    progress.show({.step = 1, .total = 2});
    progress.show_line(1, 2, {{"loss", 0.5}});
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "step 1/2  loss 0.5\n");
}

TEST(Progress, OnATerminalOneLineIsRewrittenAndEvaluationsStay) {
  testing::internal::CaptureStdout();
  {
    Progress progress(true);
    progress.show({.step = 2, .total = 2, .loss = 0.5});
    progress.show_line(2, 2, {{"loss", 0.5}});
    progress.show_line(2, 2, {{"eval_loss", 0.75}});
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "\r\x1b[2Kstep 2/2 100%  loss 0.5  0 tok/s  0 MiB  0s left"
            "\r\x1b[2Kstep 2/2  eval_loss 0.75\n");
}

}  // namespace
}  // namespace temper::trainer
