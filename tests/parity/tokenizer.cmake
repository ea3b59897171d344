temper_test(parity_tokenizer_test LABEL parity
  SOURCES tokenizer_test.cpp ${PROJECT_SOURCE_DIR}/tests/data/text/encoding_cases.cpp LIBRARIES temper_data)
