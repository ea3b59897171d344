temper_test(parity_optimizer_test LABEL parity ATEN
  SOURCES optimizer_test.cpp
  LIBRARIES temper_trainer)
