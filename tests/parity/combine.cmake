temper_test(parity_combine_test LABEL parity ATEN
  SOURCES combine_test.cpp
  LIBRARIES temper_trainer)
