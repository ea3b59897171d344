temper_test(parity_float8_test LABEL parity ATEN
  SOURCES float8_test.cpp
  LIBRARIES temper_trainer)
