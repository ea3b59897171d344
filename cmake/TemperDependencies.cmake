# Everything Temper links: LibTorch from a given directory (-DLibTorch_ROOT), else from the python found;
# the rest from Debian packages. Parquet is optional (pyarrow's wheel, -DArrow_ROOT).
if(DEFINED ENV{TEMPER_PACKAGES})
  set(TEMPER_PACKAGES "$ENV{TEMPER_PACKAGES}")
else()
  set(TEMPER_PACKAGES "$ENV{HOME}/.cache/temper")  # where launch/setup.sh puts what comes from PyPI
endif()
include(FindLibTorch)

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(MPI REQUIRED COMPONENTS C)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(Boost 1.74 REQUIRED COMPONENTS program_options)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(simdjson REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(TOMLPP REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

include(FindArrow)
