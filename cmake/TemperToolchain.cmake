# Compiler cache, linker and sanitizers: what makes a build quick or strict, not what it contains.
find_program(TEMPER_CCACHE ccache)
if(TEMPER_CCACHE)
  # Precompiled headers are only cached when ccache may trust their time stamps.
  set(launcher ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${TEMPER_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
endif()

find_program(TEMPER_MOLD mold)
if(TEMPER_MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  add_link_options(-fuse-ld=mold)
endif()

set(TEMPER_SANITIZE "" CACHE STRING "Sanitizers, comma separated (address,undefined or thread)")
if(TEMPER_SANITIZE)
  # Under a sanitizer g++ 12 takes the branches of std::variant for uninitialised reads.
  add_compile_options(-fsanitize=${TEMPER_SANITIZE} -fno-omit-frame-pointer -g1 -O1 -Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${TEMPER_SANITIZE})
endif()
