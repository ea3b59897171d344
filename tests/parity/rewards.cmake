temper_test(parity_rewards_test LABEL parity SOURCES rewards_test.cpp LIBRARIES temper_trainer)
