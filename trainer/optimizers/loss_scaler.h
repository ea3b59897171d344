#pragma once

#include <cstdint>

/// Dynamic loss scaling (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2): in float16 small gradients would be zero, so the
/// loss is multiplied by a scale before backward and the gradients divided by it after, in float32. A step whose gradients overflow is
/// not made and halves the scale; 2000 good ones in a row double it. torch.amp.GradScaler's defaults, and its behaviour.
///     LossScaler scaler;
///     ... backward of loss * scaler.scale() ...
///     const bool overflowed = !std::isfinite(norm);   // of all ranks
///     if (!overflowed) optimizer.step(lr, 1 / scaler.scale());
///     scaler.update(overflowed);
namespace temper::trainer {

class LossScaler {
 public:
  /// What a resumed run goes on with.
  struct State {
    double scale = 65536;   // of the mean loss
    int64_t good_steps = 0;  // since the scale was last changed
    int64_t overflows = 0;   // in a row
  };

  double scale() const { return state_.scale; }
  /// After each step: whether a gradient was infinite or NaN.
  void update(bool overflowed);
  /// Overflows in a row, if they have gone on below a scale of one: then it is the model's numbers that float16 cannot hold, and no
  /// smaller scale will help. Else 0.
  int64_t hopeless() const;

  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  State state_;
};

}  // namespace temper::trainer
