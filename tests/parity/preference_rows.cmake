temper_test(preference_rows_parity_test LABEL parity
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/preference_rows_test.cpp LIBRARIES temper_data)
