# One function gives every target its language level, warnings and include root.
function(temper_target target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-unknown-pragmas)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
endfunction()

# temper_library(NAME): an empty archive; the folder's CMakeLists adds sources and libraries.
function(temper_library target)
  add_library(${target} STATIC)
  temper_target(${target})
endfunction()

# One precompiled ATen header for every target that is full of tensors.
function(temper_use_aten_pch target)
  if(NOT TARGET temper_aten_pch)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/aten_pch.cpp CONTENT "// Nothing but its precompiled header.\n")  # keeps the time of an unchanged file
    add_library(temper_aten_pch OBJECT ${PROJECT_BINARY_DIR}/aten_pch.cpp)
    temper_target(temper_aten_pch)
    target_link_libraries(temper_aten_pch PUBLIC LibTorch::cpu OpenMP::OpenMP_CXX)
    target_precompile_headers(temper_aten_pch PRIVATE <ATen/ATen.h>)
  endif()
  target_link_libraries(${target} PUBLIC LibTorch::cpu OpenMP::OpenMP_CXX)
  target_compile_options(${target} PRIVATE -fPIC)  # not an executable's -fPIE: the header's own setting
  target_precompile_headers(${target} REUSE_FROM temper_aten_pch)
endfunction()

# temper_test(NAME LABEL label SOURCES a.cpp ... LIBRARIES temper_x ... [RANKS n...] [ATEN])
# A Google Test program. Without RANKS it is one ctest entry; with RANKS it brings its own main()
# and is run once for each number of ranks under mpirun.
function(temper_test name)
  cmake_parse_arguments(T "ATEN" "LABEL" "SOURCES;LIBRARIES;RANKS;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  temper_target(${name})
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} GTest::gtest)
  if(T_ATEN)
    temper_use_aten_pch(${name})
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(T_RANKS)
    foreach(ranks ${T_RANKS})
      add_test(NAME ${name}_${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} --oversubscribe $<TARGET_FILE:${name}>)
      set_tests_properties(${name}_${ranks} PROPERTIES LABELS "${T_LABEL}" TIMEOUT 300
        ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;TEMPER_SOURCE_DIR=${PROJECT_SOURCE_DIR};${T_ENVIRONMENT}"
        RUN_SERIAL ON)
    endforeach()
  else()
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "${T_LABEL}" TIMEOUT 300
      ENVIRONMENT "TEMPER_SOURCE_DIR=${PROJECT_SOURCE_DIR};${T_ENVIRONMENT}")
  endif()
endfunction()
