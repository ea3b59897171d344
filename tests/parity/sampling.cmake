temper_test(parity_sampling_test LABEL parity SOURCES sampling_test.cpp LIBRARIES temper_trainer)
