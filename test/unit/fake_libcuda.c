// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A libcuda that needs no GPU: host memory stands in for device memory, kernels do nothing, every
// call is recorded. CudaDriverTest.cpp loads it through KVCC_LIBCUDA. Single-threaded use only.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

static char callLog[1 << 16];
static size_t callLogSize;
static char failingSymbol[64];
static int failingStatus;
static void *contextStack[16];
static int contextDepth;
static int primaryContext; // its address is the handle
static int retained, modules, buffers, streams, events;

// Control, called by the test.
API const char *fakeCudaLog(void) { return callLog; }
API void fakeCudaReset(void) {
  callLogSize = 0;
  callLog[0] = 0;
  failingSymbol[0] = 0;
}
API void fakeCudaFail(const char *symbol, int status) {
  snprintf(failingSymbol, sizeof(failingSymbol), "%s", symbol);
  failingStatus = status;
}
API int fakeCudaLive(void) { return retained + modules + buffers + streams + events; }
API int fakeCudaContextDepth(void) { return contextDepth; }
API void *fakeCudaPrimaryContext(void) { return &primaryContext; }

static int called(const char *symbol, const char *details) {
  callLogSize += snprintf(callLog + callLogSize, sizeof(callLog) - callLogSize, "%s(%s)\n", symbol, details);
  return strcmp(symbol, failingSymbol) == 0 ? failingStatus : 0;
}

// Records the call, fails if told to, and, where a context is needed, if none is current.
#define ENTER(details)                                                                                                 \
  do {                                                                                                                 \
    int status_ = called(__func__, details);                                                                           \
    if (status_)                                                                                                       \
      return status_;                                                                                                  \
  } while (0)
#define ENTER_IN_CONTEXT(details)                                                                                      \
  do {                                                                                                                 \
    ENTER(details);                                                                                                    \
    if (contextDepth == 0 || contextStack[contextDepth - 1] != &primaryContext)                                        \
      return 201; /* CUDA_ERROR_INVALID_CONTEXT */                                                                     \
  } while (0)

API int cuInit(unsigned flags) {
  ENTER(flags ? "flags" : "0");
  return 0;
}
API int cuDriverGetVersion(int *version) {
  ENTER("");
  *version = 13000;
  return 0;
}
API int cuGetErrorName(int status, const char **text) {
  switch (status) {
  case 1:
    *text = "CUDA_ERROR_INVALID_VALUE";
    return 0;
  case 2:
    *text = "CUDA_ERROR_OUT_OF_MEMORY";
    return 0;
  case 100:
    *text = "CUDA_ERROR_NO_DEVICE";
    return 0;
  case 201:
    *text = "CUDA_ERROR_INVALID_CONTEXT";
    return 0;
  case 218:
    *text = "CUDA_ERROR_INVALID_PTX";
    return 0;
  case 500:
    *text = "CUDA_ERROR_NOT_FOUND";
    return 0;
  default:
    *text = 0;
    return 1;
  }
}
API int cuGetErrorString(int status, const char **text) {
  if (status == 100) {
    *text = "no CUDA-capable device is detected";
    return 0;
  }
  *text = 0;
  return 1;
}
API int cuDeviceGetCount(int *count) {
  ENTER("");
  *count = 1;
  return 0;
}
API int cuDeviceGet(int *device, int ordinal) {
  ENTER("");
  *device = 40 + ordinal; // not the ordinal, so that mixing the two up is noticed
  return ordinal == 0 ? 0 : 101;
}
API int cuDeviceGetName(char *name, int size, int device) {
  ENTER("");
  snprintf(name, size, "Fake GPU %d", device);
  return device == 40 ? 0 : 101;
}
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
  ENTER("");
  switch (attribute) {
  case 16:
    *value = 132;
    break;
  case 36:
    *value = 2619000;
    break;
  case 37:
    *value = 5120;
    break;
  case 38:
    *value = 50 << 20;
    break;
  case 75:
    *value = 9;
    break;
  case 76:
    *value = 0;
    break;
  case 81:
    *value = 228 << 10;
    break;
  case 97:
    *value = 227 << 10;
    break;
  default:
    return 1;
  }
  return device == 40 ? 0 : 101;
}
API int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  ENTER("");
  *bytes = (size_t)80 << 30;
  return device == 40 ? 0 : 101;
}
API int cuDevicePrimaryCtxRetain(void **context, int device) {
  ENTER("");
  *context = &primaryContext;
  ++retained;
  return device == 40 ? 0 : 101;
}
API int cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER("");
  --retained;
  return device == 40 ? 0 : 101;
}
API int cuCtxGetCurrent(void **context) {
  ENTER("");
  *context = contextDepth ? contextStack[contextDepth - 1] : 0;
  return 0;
}
API int cuCtxPushCurrent_v2(void *context) {
  ENTER("");
  if (contextDepth == 16)
    return 1;
  contextStack[contextDepth++] = context;
  return 0;
}
API int cuCtxPopCurrent_v2(void **context) {
  ENTER("");
  if (contextDepth == 0)
    return 201;
  *context = contextStack[--contextDepth];
  return 0;
}
API int cuCtxSynchronize(void) {
  ENTER_IN_CONTEXT("");
  return 0;
}
API int cuModuleLoadDataEx(void **module, const void *image, unsigned numOptions, int *options, void **values) {
  ENTER_IN_CONTEXT("");
  const char *text = image;
  if (memcmp(text,
             "\x7f"
             "ELF",
             4) != 0 &&
      strstr(text, ".version") == 0) {
    char *log = 0;
    size_t size = 0;
    for (unsigned i = 0; i < numOptions; ++i) {
      if (options[i] == 5)
        log = values[i];
      if (options[i] == 6)
        size = (size_t)values[i];
    }
    if (log)
      snprintf(log, size, "ptxas application ptx input, line 1; fatal: Missing .version\n");
    return 218;
  }
  *module = malloc(1);
  ++modules;
  return 0;
}
API int cuModuleUnload(void *module) {
  ENTER_IN_CONTEXT("");
  free(module);
  --modules;
  return 0;
}
API int cuModuleGetFunction(void **function, void *module, const char *name) {
  ENTER_IN_CONTEXT(name);
  *function = module;
  return strcmp(name, "kernel") == 0 ? 0 : 500;
}
API int cuFuncLoad(void *function) {
  ENTER_IN_CONTEXT("");
  return function ? 0 : 1;
}
API int cuFuncGetAttribute(int *value, int attribute, void *function) {
  ENTER_IN_CONTEXT("");
  *value = attribute == 0 ? 1024 : attribute == 1 ? 512 : attribute == 4 ? 96 : 0;
  return function ? 0 : 1;
}
API int cuFuncSetAttribute(void *function, int attribute, int value) {
  char details[64];
  snprintf(details, sizeof(details), "%d, %d", attribute, value);
  ENTER_IN_CONTEXT(details);
  return function ? 0 : 1;
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t sharedBytes) {
  ENTER_IN_CONTEXT("");
  *blocks = sharedBytes > 200000 ? 0 : 2048 / threads;
  return function ? 0 : 1;
}
API int cuLaunchKernel(void *function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,
                       unsigned blockZ, unsigned sharedBytes, void *stream, void **parameters, void **extra) {
  char details[256];
  snprintf(details, sizeof(details), "%ux%ux%u, %ux%ux%u, %u, %s, %d, %s", gridX, gridY, gridZ, blockX, blockY, blockZ,
           sharedBytes, stream ? "stream" : "default", parameters ? *(int *)parameters[0] : -1,
           extra ? "extra" : "null");
  ENTER_IN_CONTEXT(details);
  return function && blockX * blockY * blockZ <= 1024 ? 0 : 1;
}
struct LaunchConfig { // CUlaunchConfig
  unsigned grid[3], block[3], sharedBytes;
  void *stream;
  struct {
    int id, unused, value[16];
  } *attributes;
  unsigned numAttributes;
};
API int cuLaunchKernelEx(const struct LaunchConfig *c, void *function, void **parameters, void **extra) {
  char details[256];
  snprintf(details, sizeof(details), "%ux%ux%u, %ux%ux%u, %u, %s, %d = %d, %d, %s", c->grid[0], c->grid[1], c->grid[2],
           c->block[0], c->block[1], c->block[2], c->sharedBytes, c->stream ? "stream" : "default",
           c->numAttributes ? c->attributes->id : -1, c->numAttributes ? c->attributes->value[0] : -1,
           parameters ? *(int *)parameters[0] : -1, extra ? "extra" : "null");
  ENTER_IN_CONTEXT(details);
  return function && c->block[0] * c->block[1] * c->block[2] <= 1024 ? 0 : 1;
}
API int cuMemGetInfo_v2(size_t *freeBytes, size_t *totalBytes) {
  ENTER_IN_CONTEXT("");
  *freeBytes = (size_t)70 << 30;
  *totalBytes = (size_t)80 << 30;
  return 0;
}
API int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  ENTER_IN_CONTEXT("");
  if (bytes == 0)
    return 1;
  *address = (uint64_t)(uintptr_t)malloc(bytes);
  ++buffers;
  return 0;
}
API int cuMemFree_v2(uint64_t address) {
  ENTER_IN_CONTEXT("");
  free((void *)(uintptr_t)address);
  --buffers;
  return 0;
}
static int copy(void *target, const void *source, size_t bytes) {
  memcpy(target, source, bytes);
  return 0;
}
API int cuMemcpyHtoD_v2(uint64_t target, const void *source, size_t bytes) {
  ENTER_IN_CONTEXT("");
  return copy((void *)(uintptr_t)target, source, bytes);
}
API int cuMemcpyDtoH_v2(void *target, uint64_t source, size_t bytes) {
  ENTER_IN_CONTEXT("");
  return copy(target, (void *)(uintptr_t)source, bytes);
}
API int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t bytes, void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  return copy((void *)(uintptr_t)target, source, bytes);
}
API int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t bytes, void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  return copy(target, (void *)(uintptr_t)source, bytes);
}
API int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t bytes, void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  return copy((void *)(uintptr_t)target, (void *)(uintptr_t)source, bytes);
}
API int cuMemsetD8Async(uint64_t target, unsigned char value, size_t bytes, void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  memset((void *)(uintptr_t)target, value, bytes);
  return 0;
}
API int cuStreamCreate(void **stream, unsigned flags) {
  ENTER_IN_CONTEXT(flags == 1 ? "non-blocking" : "other");
  *stream = malloc(1);
  ++streams;
  return 0;
}
API int cuStreamDestroy_v2(void *stream) {
  ENTER_IN_CONTEXT("");
  free(stream);
  --streams;
  return 0;
}
API int cuStreamSynchronize(void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  return 0;
}
API int cuEventCreate(void **event, unsigned flags) {
  ENTER_IN_CONTEXT(flags ? "flags" : "0");
  *event = malloc(1);
  ++events;
  return 0;
}
API int cuEventDestroy_v2(void *event) {
  ENTER_IN_CONTEXT("");
  free(event);
  --events;
  return 0;
}
API int cuEventRecord(void *event, void *stream) {
  ENTER_IN_CONTEXT(stream ? "stream" : "default");
  return event ? 0 : 1;
}
API int cuEventSynchronize(void *event) {
  ENTER_IN_CONTEXT("");
  return event ? 0 : 1;
}
API int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
  ENTER_IN_CONTEXT("");
  *milliseconds = 1.5f;
  return start && end && start != end ? 0 : 1;
}
