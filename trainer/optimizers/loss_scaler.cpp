#include "trainer/optimizers/loss_scaler.h"

namespace temper::trainer {

namespace {

constexpr double kGrowth = 2, kBackoff = 0.5;
constexpr int64_t kGrowthInterval = 2000;
constexpr int64_t kPatience = 20;  // from 65536 down to one it takes 16

}  // namespace

void LossScaler::update(bool overflowed) {
  if (overflowed) {
    state_.scale *= kBackoff;
    state_.good_steps = 0;
    ++state_.overflows;
    return;
  }
  state_.overflows = 0;
  if (++state_.good_steps < kGrowthInterval) return;
  state_.scale *= kGrowth;
  state_.good_steps = 0;
}

int64_t LossScaler::hopeless() const { return state_.scale < 1 && state_.overflows >= kPatience ? state_.overflows : 0; }

}  // namespace temper::trainer
