# Finds LibTorch without its own TorchConfig.cmake, which insists on a CUDA toolkit, and defines
#   LibTorch::cpu    libtorch_cpu, libc10 and the headers
#   LibTorch::cuda   libtorch_cuda, libc10_cuda (only where the wheel's CUDA libraries are complete)
# LibTorch_ROOT is the `torch` directory of a wheel or an unpacked LibTorch (include/, lib/). Taken, in this order: the
# given one, the python's torch, the private install of launch/setup.sh.
if(NOT LibTorch_ROOT)
  if(EXISTS "$ENV{LibTorch_ROOT}")
    set(LibTorch_ROOT "$ENV{LibTorch_ROOT}")
  else()
    find_package(Python3 COMPONENTS Interpreter)
    if(Python3_FOUND)
      execute_process(
        COMMAND ${Python3_EXECUTABLE} -c
                "import importlib.util as u, os; s = u.find_spec('torch'); print(os.path.dirname(s.origin) if s else '')"
        OUTPUT_VARIABLE LibTorch_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    if(NOT LibTorch_ROOT)
      set(LibTorch_ROOT "${TEMPER_PACKAGES}/libtorch-2.11.0/torch")
    endif()
  endif()
endif()
if(NOT EXISTS "${LibTorch_ROOT}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found (LibTorch_ROOT='${LibTorch_ROOT}'): run launch/setup.sh, "
                      "which installs it and prints its path, or give -DLibTorch_ROOT=<directory with lib/libtorch_cpu.so>")
endif()
file(READ "${LibTorch_ROOT}/version.py" _torch_version)
string(REGEX MATCH "__version__ *= *'([^']*)'" _ "${_torch_version}")
set(LibTorch_VERSION "${CMAKE_MATCH_1}")
get_filename_component(LibTorch_SITE "${LibTorch_ROOT}" DIRECTORY)
file(GLOB _nvidia_lib_dirs "${LibTorch_SITE}/nvidia/*/lib")
message(STATUS "LibTorch ${LibTorch_VERSION}: ${LibTorch_ROOT}")

foreach(lib c10 torch_cpu)
  add_library(LibTorch_${lib} SHARED IMPORTED)
  set_target_properties(LibTorch_${lib} PROPERTIES IMPORTED_LOCATION "${LibTorch_ROOT}/lib/lib${lib}.so")
endforeach()
add_library(LibTorch_cpu_interface INTERFACE IMPORTED)
target_include_directories(LibTorch_cpu_interface SYSTEM INTERFACE
  "${LibTorch_ROOT}/include" "${LibTorch_ROOT}/include/torch/csrc/api/include")
target_link_libraries(LibTorch_cpu_interface INTERFACE LibTorch_torch_cpu LibTorch_c10)
# torch/lib comes first in the rpath, so that its libgomp is the only one mapped; CMake's own run path would put it last (and
# warn that the compiler's libgomp is hidden, which is the purpose).
set(CMAKE_SKIP_BUILD_RPATH ON)
target_link_options(LibTorch_cpu_interface INTERFACE "LINKER:-rpath,${LibTorch_ROOT}/lib" "LINKER:--allow-shlib-undefined")
foreach(dir ${_nvidia_lib_dirs})
  target_link_options(LibTorch_cpu_interface INTERFACE "LINKER:-rpath,${dir}")
endforeach()
add_library(LibTorch::cpu ALIAS LibTorch_cpu_interface)

if(EXISTS "${LibTorch_ROOT}/lib/libtorch_cuda.so")
  foreach(lib c10_cuda torch_cuda)
    add_library(LibTorch_${lib} SHARED IMPORTED)
    set_target_properties(LibTorch_${lib} PROPERTIES IMPORTED_LOCATION "${LibTorch_ROOT}/lib/lib${lib}.so")
  endforeach()
  add_library(LibTorch_cuda_interface INTERFACE IMPORTED)
  target_link_libraries(LibTorch_cuda_interface INTERFACE LibTorch_torch_cuda LibTorch_c10_cuda LibTorch_cpu_interface)
  add_library(LibTorch::cuda ALIAS LibTorch_cuda_interface)
endif()
