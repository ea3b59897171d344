temper_test(parity_quantized_test LABEL parity ATEN
  SOURCES quantized_test.cpp
  LIBRARIES temper_trainer)
