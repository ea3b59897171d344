temper_test(parity_online_dpo_test LABEL parity ATEN
  SOURCES online_dpo_test.cpp
  LIBRARIES temper_trainer)
