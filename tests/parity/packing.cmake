temper_test(packing_parity_test LABEL parity SOURCES packing_test.cpp LIBRARIES temper_data)
