temper_test(parity_adapter_files_test LABEL parity ATEN
  SOURCES adapter_files_test.cpp
  LIBRARIES temper_trainer)
