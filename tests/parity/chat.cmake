temper_test(chat_parity_test LABEL parity
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/chat_test.cpp LIBRARIES temper_data)
