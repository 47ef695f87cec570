# Targets of Caravan. Every source and header is listed; no globs.
#
#   caravan_library(NAME common_kv HDRS block_hash.h SRCS block_hash.cc
#                   DEPS PkgConfig::XXHASH caravan::common_status)
#   caravan_binary(NAME caravan-router SRCS main.cc DEPS ...)
#   caravan_test(NAME common_kv_test SRCS block_hash_test.cc DEPS ... LABELS x)
#   caravan_benchmark(NAME worker_ops_cpu_bench SRCS ... DEPS ...)

function(caravan_compile_options target)
  target_include_directories(${target} ${ARGN} ${CMAKE_SOURCE_DIR})
  get_target_property(kind ${target} TYPE)
  if(kind STREQUAL "INTERFACE_LIBRARY")
    return()
  endif()
  # Explicit fma and no contraction: the canonical computation (README,
  # "Exactness") must not depend on what the optimizer likes.
  target_compile_options(
    ${target} PRIVATE -Wall -Wextra -Wno-unused-parameter -ffp-contract=off
                      -fno-fast-math $<$<BOOL:${CARAVAN_WERROR}>:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(${target} PRIVATE -Wthread-safety)
  endif()
  if(CARAVAN_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${target} PUBLIC -fsanitize=fuzzer-no-link)
  endif()
  if(CARAVAN_SANITIZE)
    # GCC guesses wrong about optionals where it does not optimize.
    target_compile_options(
      ${target}
      PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  endif()
  if(CARAVAN_SANITIZE STREQUAL "address")
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined
                                             -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  elseif(CARAVAN_SANITIZE STREQUAL "thread")
    # Asio's fences are not seen by the sanitizer; its locks are.
    target_compile_options(
      ${target} PRIVATE -fsanitize=thread
                        $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
    target_link_options(${target} PUBLIC -fsanitize=thread)
  endif()
endfunction()

function(caravan_library)
  cmake_parse_arguments(arg "" "NAME" "HDRS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(arg_SRCS)
    add_library(${arg_NAME} STATIC ${arg_SRCS})
    set(scope PUBLIC)
  else()
    add_library(${arg_NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(caravan::${arg_NAME} ALIAS ${arg_NAME})
  target_sources(
    ${arg_NAME} ${scope} FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR}
    FILES ${arg_HDRS})
  target_link_libraries(${arg_NAME} ${scope} ${arg_DEPS})
  if(arg_PRIVATE_DEPS)
    target_link_libraries(${arg_NAME} PRIVATE ${arg_PRIVATE_DEPS})
  endif()
  caravan_compile_options(${arg_NAME} ${scope})
endfunction()

# Kernels: what nvcc compiles. No contraction of products and sums, no
# approximations; ptxas says what each kernel takes (tests/gpu/build_report.sh).
function(caravan_cuda_library)
  cmake_parse_arguments(arg "" "NAME" "HDRS;SRCS;DEPS" ${ARGN})
  add_library(${arg_NAME} STATIC ${arg_SRCS})
  add_library(caravan::${arg_NAME} ALIAS ${arg_NAME})
  target_sources(
    ${arg_NAME} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR}
    FILES ${arg_HDRS})
  target_include_directories(${arg_NAME} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${arg_NAME} PRIVATE --expt-relaxed-constexpr
                                             --fmad=false -Xptxas=-v)
  target_link_libraries(${arg_NAME} PUBLIC ${arg_DEPS} CUDA::cudart_static)
endfunction()

function(caravan_executable)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${arg_NAME} ${arg_SRCS})
  if(TARGET caravan_tsan)
    target_link_libraries(${arg_NAME} PRIVATE caravan_tsan absl::synchronization)
  endif()
  target_link_libraries(${arg_NAME} PRIVATE ${arg_DEPS} Threads::Threads)
  caravan_compile_options(${arg_NAME} PRIVATE)
endfunction()

function(caravan_binary)
  caravan_executable(${ARGN})
endfunction()

function(caravan_test)
  cmake_parse_arguments(arg "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  caravan_executable(NAME ${arg_NAME} SRCS ${arg_SRCS}
                     DEPS ${arg_DEPS} caravan::tests_support GTest::gmock)
  gtest_discover_tests(
    ${arg_NAME} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
endfunction()

function(caravan_benchmark)
  caravan_executable(${ARGN})
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  target_link_libraries(${arg_NAME} PRIVATE benchmark::benchmark_main)
endfunction()
