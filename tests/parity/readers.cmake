if(TEMPER_PARQUET)
  temper_test(readers_parity_test LABEL parity SOURCES readers_test.cpp LIBRARIES temper_data)
endif()
