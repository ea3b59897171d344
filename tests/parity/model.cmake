temper_test(model_parity_test LABEL parity ATEN SOURCES ${CMAKE_CURRENT_LIST_DIR}/model_test.cpp LIBRARIES temper_trainer)
