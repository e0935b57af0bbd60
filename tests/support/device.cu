// What the GPU script needs of the CUDA runtime, as plain C for ctypes. Each function returns nullptr or what
// went wrong.
#include <cuda_runtime.h>

#include <cstdio>

#define CHECK(call)                                             \
  do {                                                          \
    const cudaError_t error = (call);                           \
    if (error != cudaSuccess) return cudaGetErrorString(error); \
  } while (0)

extern "C" {

const char* gpu_describe(char* text, int room, int* capability) {
  cudaDeviceProp device;
  int driver = 0, runtime = 0;
  CHECK(cudaGetDeviceProperties(&device, 0));
  CHECK(cudaDriverGetVersion(&driver));
  CHECK(cudaRuntimeGetVersion(&runtime));
  *capability = 10 * device.major + device.minor;
  std::snprintf(text, room, "%s, sm_%d, %d multiprocessors, CUDA %d.%d, driver for %d.%d", device.name,
                *capability, device.multiProcessorCount, runtime / 1000, runtime % 1000 / 10, driver / 1000,
                driver % 1000 / 10);
  return nullptr;
}

const char* gpu_allocate(size_t bytes, void** out) {
  CHECK(cudaMalloc(out, bytes));
  return nullptr;
}
const char* gpu_free(void* memory) {
  CHECK(cudaFree(memory));
  return nullptr;
}
const char* gpu_upload(void* to, const void* from, size_t bytes) {
  CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  return nullptr;
}
const char* gpu_download(void* to, const void* from, size_t bytes) {
  CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
  return nullptr;
}
const char* gpu_fill(void* memory, int byte, size_t bytes) {
  CHECK(cudaMemset(memory, byte, bytes));
  CHECK(cudaDeviceSynchronize());
  return nullptr;
}

const char* gpu_stream(void** out) {
  CHECK(cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(out), cudaStreamNonBlocking));
  return nullptr;
}
const char* gpu_synchronize(void* stream) {
  CHECK(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
  return nullptr;
}

const char* gpu_begin_capture(void* stream) {
  CHECK(cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeGlobal));
  return nullptr;
}
const char* gpu_end_capture(void* stream, void** out, size_t* nodes) {
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph));
  CHECK(cudaGraphGetNodes(graph, nullptr, nodes));
  CHECK(cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t*>(out), graph, 0));
  CHECK(cudaGraphDestroy(graph));
  return nullptr;
}
const char* gpu_replay(void* graph, void* stream) {
  CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)));
  return nullptr;
}
const char* gpu_drop_graph(void* graph) {
  CHECK(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  return nullptr;
}

// Milliseconds of each of `count` replays, between events; the first `warmup` are left out.
const char* gpu_time(void* graph, void* stream_handle, int warmup, int count, float* out) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
  cudaEvent_t start, stop;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&stop));
  for (int i = -warmup; i < count; ++i) {
    CHECK(cudaEventRecord(start, stream));
    CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream));
    CHECK(cudaEventRecord(stop, stream));
    CHECK(cudaEventSynchronize(stop));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    if (i >= 0) out[i] = milliseconds;
  }
  CHECK(cudaEventDestroy(start));
  CHECK(cudaEventDestroy(stop));
  return nullptr;
}

// Bytes read plus written per second by copies on the device.
const char* gpu_bandwidth(void* stream_handle, double* out) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
  const size_t bytes = size_t(256) << 20;
  const int copies = 20;
  void *from = nullptr, *to = nullptr;
  cudaEvent_t start, stop;
  CHECK(cudaMalloc(&from, bytes));
  CHECK(cudaMalloc(&to, bytes));
  CHECK(cudaMemset(from, 1, bytes));
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&stop));
  for (int i = -3; i < copies; ++i) {
    if (i == 0) CHECK(cudaEventRecord(start, stream));
    CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
  }
  CHECK(cudaEventRecord(stop, stream));
  CHECK(cudaEventSynchronize(stop));
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
  *out = 2.0 * copies * static_cast<double>(bytes) / (milliseconds * 1e-3);
  CHECK(cudaFree(from));
  CHECK(cudaFree(to));
  CHECK(cudaEventDestroy(start));
  CHECK(cudaEventDestroy(stop));
  return nullptr;
}

}  // extern "C"
