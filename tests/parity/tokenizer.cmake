temper_test(parity_tokenizer_test LABEL parity SOURCES tokenizer_test.cpp LIBRARIES temper_data)
