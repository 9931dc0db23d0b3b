// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The entry points of libcuda that kvcc calls, declared by hand after the documentation of the CUDA
// driver API. Where the API has a _v2 symbol, that is the one with 64-bit sizes and addresses.

#ifndef KVCC_RUNTIME_CUDAFUNCTIONS_H
#define KVCC_RUNTIME_CUDAFUNCTIONS_H

#include <cstddef>
#include <cstdint>

namespace kvcc {

/// X(member, symbol, parameter types). Every function returns CUresult, an int; 0 is success.
/// Handles are opaque pointers (void *), devices are ints, device addresses uint64_t.
#define KVCC_CUDA_FUNCTIONS(X)                                                                                         \
  X(init, "cuInit", (unsigned flags))                                                                                  \
  X(driverGetVersion, "cuDriverGetVersion", (int *version))                                                            \
  X(getErrorName, "cuGetErrorName", (int status, const char **text))                                                   \
  X(getErrorString, "cuGetErrorString", (int status, const char **text))                                               \
  X(deviceGetCount, "cuDeviceGetCount", (int *count))                                                                  \
  X(deviceGet, "cuDeviceGet", (int *device, int ordinal))                                                              \
  X(deviceGetName, "cuDeviceGetName", (char *name, int size, int device))                                              \
  X(deviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))                               \
  X(deviceTotalMem, "cuDeviceTotalMem_v2", (size_t *bytes, int device))                                                \
  X(primaryCtxRetain, "cuDevicePrimaryCtxRetain", (void **context, int device))                                        \
  X(primaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (int device))                                                   \
  X(ctxGetCurrent, "cuCtxGetCurrent", (void **context))                                                                \
  X(ctxPushCurrent, "cuCtxPushCurrent_v2", (void *context))                                                            \
  X(ctxPopCurrent, "cuCtxPopCurrent_v2", (void **context))                                                             \
  X(ctxSynchronize, "cuCtxSynchronize", ())                                                                            \
  X(moduleLoadDataEx, "cuModuleLoadDataEx",                                                                            \
    (void **module, const void *image, unsigned numOptions, int *options, void **values))                              \
  X(moduleUnload, "cuModuleUnload", (void *module))                                                                    \
  X(moduleGetFunction, "cuModuleGetFunction", (void **function, void *module, const char *name))                       \
  X(funcGetAttribute, "cuFuncGetAttribute", (int *value, int attribute, void *function))                               \
  X(funcSetAttribute, "cuFuncSetAttribute", (void *function, int attribute, int value))                                \
  X(occupancy, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                                                          \
    (int *blocks, void *function, int threads, size_t dynamicSharedBytes))                                             \
  X(launchKernel, "cuLaunchKernel",                                                                                    \
    (void *function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,                 \
     unsigned blockZ, unsigned sharedBytes, void *stream, void **parameters, void **extra))                            \
  X(memGetInfo, "cuMemGetInfo_v2", (size_t *freeBytes, size_t *totalBytes))                                            \
  X(memAlloc, "cuMemAlloc_v2", (uint64_t *address, size_t bytes))                                                      \
  X(memFree, "cuMemFree_v2", (uint64_t address))                                                                       \
  X(memcpyHtoD, "cuMemcpyHtoD_v2", (uint64_t target, const void *source, size_t bytes))                                \
  X(memcpyDtoH, "cuMemcpyDtoH_v2", (void *target, uint64_t source, size_t bytes))                                      \
  X(memcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (uint64_t target, const void *source, size_t bytes, void *stream))        \
  X(memcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *target, uint64_t source, size_t bytes, void *stream))              \
  X(memcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (uint64_t target, uint64_t source, size_t bytes, void *stream))           \
  X(memsetD8Async, "cuMemsetD8Async", (uint64_t target, unsigned char value, size_t bytes, void *stream))              \
  X(streamCreate, "cuStreamCreate", (void **stream, unsigned flags))                                                   \
  X(streamDestroy, "cuStreamDestroy_v2", (void *stream))                                                               \
  X(streamSynchronize, "cuStreamSynchronize", (void *stream))                                                          \
  X(eventCreate, "cuEventCreate", (void **event, unsigned flags))                                                      \
  X(eventDestroy, "cuEventDestroy_v2", (void *event))                                                                  \
  X(eventRecord, "cuEventRecord", (void *event, void *stream))                                                         \
  X(eventSynchronize, "cuEventSynchronize", (void *event))                                                             \
  X(eventElapsedTime, "cuEventElapsedTime", (float *milliseconds, void *start, void *end))

/// CUlaunchAttribute and CUlaunchConfig.
struct CudaLaunchAttribute {
  int id;
  int unused;
  union {
    int programmaticStreamSerializationAllowed;
    uint64_t all[8];
  } value;
};
struct CudaLaunchConfig {
  unsigned grid[3], block[3], sharedBytes;
  void *stream;
  CudaLaunchAttribute *attributes;
  unsigned numAttributes;
};

struct CudaFunctions {
#define KVCC_CUDA_MEMBER(member, symbol, parameters) int(*member) parameters = nullptr;
  KVCC_CUDA_FUNCTIONS(KVCC_CUDA_MEMBER)
#undef KVCC_CUDA_MEMBER
  /// Since CUDA 12.4; null in older drivers.
  int (*funcLoad)(void *function) = nullptr;
  /// Since CUDA 11.8.
  int (*launchKernelEx)(const CudaLaunchConfig *config, void *function, void **parameters, void **extra) = nullptr;
};

/// Values of the driver API's enumerations, named as there without their CU_ prefix.
namespace cuda {
enum DeviceAttribute {
  DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,
  DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37,
  DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38,
  DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
  DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
};
enum FunctionAttribute {
  FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
  FUNC_ATTRIBUTE_NUM_REGS = 4,
  FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
};
enum LaunchAttribute { LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6 };
enum JitOption {
  JIT_ERROR_LOG_BUFFER = 5,
  JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};
enum StreamFlags { STREAM_NON_BLOCKING = 1 };
enum EventFlags { EVENT_DEFAULT = 0 };
} // namespace cuda

} // namespace kvcc

#endif // KVCC_RUNTIME_CUDAFUNCTIONS_H
