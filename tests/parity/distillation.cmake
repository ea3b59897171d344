temper_test(distillation_parity_test LABEL parity ATEN SOURCES ${CMAKE_CURRENT_LIST_DIR}/distillation_test.cpp LIBRARIES temper_trainer)
