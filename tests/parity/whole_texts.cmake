temper_test(whole_texts_parity_test LABEL parity
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/whole_texts_test.cpp LIBRARIES temper_data)
