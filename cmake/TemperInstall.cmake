# cmake --install BUILD --prefix DIR: bin/temper, lib/ (the CUDA plugin where built, and with TEMPER_BUNDLE what PyPI brought),
# share/temper/ (configs, launch scripts, docs). The tree may be moved: the program finds lib/ beside itself. Debian's libraries
# (MPI, HDF5, Boost, ...) are not copied; launch/setup.sh names them.
option(TEMPER_BUNDLE "Copy LibTorch and Arrow into the install tree (about 500 MB), so that it can be moved to another machine" ON)

set(share share/temper)
install(TARGETS temper RUNTIME DESTINATION bin)
foreach(module temper_parquet temper_hub)
  if(TARGET ${module})
    install(TARGETS ${module} LIBRARY DESTINATION lib)
  endif()
endforeach()
if(TARGET temper_cuda)
  install(TARGETS temper_cuda LIBRARY DESTINATION lib OPTIONAL)
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs DESTINATION ${share})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/launch DESTINATION ${share}
  FILES_MATCHING PATTERN "*.sh" PATTERN "*.sbatch" PATTERN "*.py" PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
foreach(document README.md LICENSE docs)
  if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/${document})
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/${document} DESTINATION ${share})
  elseif(EXISTS ${PROJECT_SOURCE_DIR}/${document})
    install(FILES ${PROJECT_SOURCE_DIR}/${document} DESTINATION ${share})
  endif()
endforeach()

if(TEMPER_BUNDLE)
  install(CODE "
    file(GET_RUNTIME_DEPENDENCIES EXECUTABLES \"$<TARGET_FILE:temper>\"
      $<$<TARGET_EXISTS:temper_parquet>:MODULES> $<$<TARGET_EXISTS:temper_parquet>:\"$<TARGET_FILE:temper_parquet>\">
      RESOLVED_DEPENDENCIES_VAR libraries UNRESOLVED_DEPENDENCIES_VAR missing CONFLICTING_DEPENDENCIES_PREFIX conflict
      POST_INCLUDE_REGEXES \"^${LibTorch_SITE}/\" \"^${Arrow_ROOT}/\" POST_EXCLUDE_REGEXES \".*\")
    set(prefix \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}\")
    file(INSTALL \${libraries} DESTINATION \"\${CMAKE_INSTALL_PREFIX}/lib\" FOLLOW_SYMLINK_CHAIN)
    file(RPATH_SET FILE \"\${prefix}/bin/temper\" NEW_RPATH \"\\\$ORIGIN/../lib\")
    if(EXISTS \"\${prefix}/lib/libtemper_parquet.so\")
      file(RPATH_SET FILE \"\${prefix}/lib/libtemper_parquet.so\" NEW_RPATH \"\\\$ORIGIN\")
    endif()")
endif()
