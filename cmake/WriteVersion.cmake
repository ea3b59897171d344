# cmake -D... -P WriteVersion.cmake: fills launch/version.cpp.in at build time, so that the revision is that of the sources
# compiled, not of the last configuration. The file is only touched when it changes.
set(TEMPER_GIT_REVISION "unknown")
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse --short=12 HEAD
    OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(TEMPER_GIT_REVISION "${revision}")
    execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} diff --quiet HEAD RESULT_VARIABLE changed ERROR_QUIET)
    if(changed)
      string(APPEND TEMPER_GIT_REVISION "+changes")
    endif()
  endif()
endif()
configure_file(${SOURCE_DIR}/launch/version.cpp.in ${OUTPUT} @ONLY)
