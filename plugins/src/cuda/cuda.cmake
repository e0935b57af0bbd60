# libltbm_cuda.so, the kernels of the op ai.ltbm::LTBM behind the C interface of ltbm_cuda.h; and what it and the
# TensorRT plugin share. Included by plugins/CMakeLists.txt.
#
# Asked for by -DLTBM_CUDA=ON; it needs nvcc and no header of TensorRT. Not built unasked: ten architectures take
# minutes, and most installations have no use for them.

option(LTBM_CUDA "Build libltbm_cuda.so" OFF)
set(CUDA_ARCHITECTURES "" CACHE STRING "GPUs to build for, such as 87 (Jetson Orin) or 110 (Thor); default: what nvcc takes")

# A macro: CMake enables a language for the folder that calls.
macro(ltbm_find_cuda)
  set(ltbm_architectures)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "LTBM: building for CUDA needs nvcc, and CMake finds none that works: put the CUDA toolkit's bin "
      "folder on PATH, or give -DCMAKE_CUDA_COMPILER=<path of nvcc>.")
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # chosen below: one place for all
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)

  # The architectures this nvcc knows, of those the kernels run on: 8.0 has the first products of bytes they need.
  if(NOT CUDA_ARCHITECTURES)
    execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code OUTPUT_VARIABLE ltbm_known RESULT_VARIABLE ltbm_failed)
    foreach(arch 80 86 87 89 90 100 103 110 120 121)
      if(NOT ltbm_failed AND ltbm_known MATCHES "sm_${arch}\n")
        list(APPEND ltbm_architectures ${arch})
      endif()
    endforeach()
  else()
    set(ltbm_architectures ${CUDA_ARCHITECTURES})
  endif()
  if(NOT ltbm_architectures)
    message(FATAL_ERROR "LTBM: ${CMAKE_CUDA_COMPILER} names no architecture the kernels run on: give "
      "-DCUDA_ARCHITECTURES=<list>, such as 87 for Jetson Orin; the oldest is 80.")
  endif()
  string(REPLACE ";" "," ltbm_built_for "${ltbm_architectures}")
  list(TRANSFORM ltbm_architectures APPEND "-real")
  message(STATUS "LTBM: CUDA kernels for ${ltbm_architectures}")
endmacro()

if(LTBM_CUDA)
  ltbm_find_cuda()
  add_library(ltbm_cuda SHARED ${CMAKE_CURRENT_SOURCE_DIR}/src/cuda/ltbm.cu ${CMAKE_CURRENT_SOURCE_DIR}/src/cuda/built_for.cpp)
  target_compile_features(ltbm_cuda PRIVATE cxx_std_17)
  # nvcc would cut the list of architectures at its commas.
  target_compile_definitions(ltbm_cuda PRIVATE LTBM_CUDA_SHARED $<$<COMPILE_LANGUAGE:CXX>:LTBM_ARCHITECTURES="${ltbm_built_for}">)
  # Similarity must have the bits of merge.py: no contraction, no fast-math.
  target_compile_options(ltbm_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false>)
  set_target_properties(ltbm_cuda PROPERTIES CUDA_ARCHITECTURES "${ltbm_architectures}" CUDA_RUNTIME_LIBRARY Static
    CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_libraries(ltbm_cuda PRIVATE CUDA::cudart_static)
  target_link_options(ltbm_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
  install(TARGETS ltbm_cuda LIBRARY DESTINATION ltbm/plugins)
endif()
