# What Caravan takes from the distribution. deploy/packages.txt has the names
# of the packages.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
if(CARAVAN_SERVICES)
  find_package(Protobuf REQUIRED)
  find_package(gRPC CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED)
endif()
if(CARAVAN_TESTS)
  find_package(GTest REQUIRED)
  find_package(benchmark REQUIRED)
  include(GoogleTest)
endif()

find_program(CARAVAN_CCACHE ccache)
if(CARAVAN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths relative to the checkout, so that another build folder or a fresh
  # clone finds what was compiled before.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
      CCACHE_NOHASHDIR=1 ${CARAVAN_CCACHE})
endif()
# The CUDA toolkit, where it is wanted and found; afterwards CARAVAN_HAS_CUDA
# says whether. nvcc may be in a folder that is not in PATH.
set(CARAVAN_HAS_CUDA OFF)
if(CARAVAN_CUDA AND NOT CARAVAN_SANITIZE AND NOT CARAVAN_FUZZ)
  find_program(CARAVAN_NVCC nvcc PATHS /usr/local/cuda/bin)
  if(CARAVAN_NVCC)
    set(CMAKE_CUDA_COMPILER ${CARAVAN_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES ${CARAVAN_CUDA_ARCHITECTURES})
    if(CARAVAN_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    endif()
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    find_package(CUDAToolkit REQUIRED)
    set(CARAVAN_HAS_CUDA ON)
  elseif(NOT CARAVAN_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "CARAVAN_CUDA=${CARAVAN_CUDA} needs nvcc in PATH")
  endif()
endif()
# mold links a gRPC binary in a fraction of the default linker's time.
find_program(CARAVAN_MOLD mold)
if(CARAVAN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
