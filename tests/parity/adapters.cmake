temper_test(parity_adapters_test LABEL parity ATEN
  SOURCES adapters_test.cpp
  LIBRARIES temper_trainer)
