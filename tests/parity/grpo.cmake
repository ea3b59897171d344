temper_test(parity_grpo_test LABEL parity ATEN
  SOURCES grpo_test.cpp
  LIBRARIES temper_trainer)
