temper_test(parity_starts_test LABEL parity ATEN
  SOURCES starts_test.cpp
  LIBRARIES temper_trainer)
