temper_test(templates_parity_test LABEL parity
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/templates_test.cpp LIBRARIES temper_data)
