# libltbm_tensorrt.so, the TensorRT plugin of the op ai.ltbm::LTBM. Included by plugins/CMakeLists.txt.
#
# Asked for by -DTENSORRT_INCLUDE_DIR=<folder of NvInfer.h>; it needs nvcc as well, and no library of TensorRT.

set(TENSORRT_INCLUDE_DIR "" CACHE PATH "Folder of NvInfer.h, such as /usr/include/aarch64-linux-gnu")
if(TENSORRT_INCLUDE_DIR)
  option(LTBM_TENSORRT "Build the TensorRT plugin" ON)
else()
  option(LTBM_TENSORRT "Build the TensorRT plugin" OFF)
endif()
if(NOT LTBM_TENSORRT)
  return()
endif()

if(NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInferRuntime.h")
  message(FATAL_ERROR "LTBM: the TensorRT plugin needs TensorRT's headers, and '${TENSORRT_INCLUDE_DIR}' holds no "
    "NvInferRuntime.h: give -DTENSORRT_INCLUDE_DIR=<folder of NvInfer.h>. They come with TensorRT's archive, with the "
    "package libnvinfer-headers-dev, and with JetPack.")
endif()
ltbm_find_cuda()

add_library(ltbm_tensorrt SHARED ${CMAKE_CURRENT_SOURCE_DIR}/src/cuda/ltbm.cu ${CMAKE_CURRENT_SOURCE_DIR}/src/tensorrt/plugin.cpp)
target_compile_features(ltbm_tensorrt PRIVATE cxx_std_17)
target_compile_definitions(ltbm_tensorrt PRIVATE $<$<COMPILE_LANGUAGE:CXX>:LTBM_ARCHITECTURES="${ltbm_built_for}">)
target_include_directories(ltbm_tensorrt SYSTEM PRIVATE "${TENSORRT_INCLUDE_DIR}")
# Similarity must have the bits of merge.py: no contraction, no fast-math.
target_compile_options(ltbm_tensorrt PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false> $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
set_target_properties(ltbm_tensorrt PROPERTIES CUDA_ARCHITECTURES "${ltbm_architectures}" CUDA_RUNTIME_LIBRARY Static
  CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
target_link_libraries(ltbm_tensorrt PRIVATE CUDA::cudart_static)
target_link_options(ltbm_tensorrt PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
install(TARGETS ltbm_tensorrt LIBRARY DESTINATION ltbm/plugins)
