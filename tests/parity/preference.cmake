temper_test(preference_parity_test LABEL parity ATEN SOURCES ${CMAKE_CURRENT_LIST_DIR}/preference_test.cpp LIBRARIES temper_trainer)
