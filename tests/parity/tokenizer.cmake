temper_test(tokenizer_parity_test LABEL parity
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/tokenizer_test.cpp LIBRARIES temper_data)
