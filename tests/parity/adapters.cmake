temper_test(parity_adapters_test LABEL parity ATEN
  SOURCES adapters_test.cpp ../trainer/adapters/stand_ins.cpp
  LIBRARIES temper_trainer)
