temper_test(parity_ppo_test LABEL parity ATEN SOURCES ppo_test.cpp LIBRARIES temper_trainer)
