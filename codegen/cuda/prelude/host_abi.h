// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The interface between libkvcc and a kernel compiled for the host: one function
// `kv_host_launch_<kernel>` per kernel. Included by the loader and by the compiled text.

#ifndef KVCC_CODEGEN_CUDA_PRELUDE_HOST_ABI_H
#define KVCC_CODEGEN_CUDA_PRELUDE_HOST_ABI_H

#include <stddef.h>
#include <stdint.h>

struct KvHostLaunch {
  uint32_t size;        ///< sizeof(KvHostLaunch); an object built for another size refuses.
  uint32_t grid[3];     ///< CTAs per dimension, each at least 1.
  uint32_t threads;     ///< Threads of a CTA: a multiple of 32, at most 1024.
  uint32_t sharedBytes; ///< Dynamic shared memory of a CTA.
  uint32_t numArgs;     ///< Length of `args`.
  uint32_t errorSize;   ///< Bytes at `error`, at least 1.
  void **args;          ///< As for cuLaunchKernel: args[i] points to the value of parameter i.
  uint64_t seed;        ///< Order of CTAs and threads, landing of copies; 0: ascending, at once.
  char *error;          ///< Receives a message when the launch fails.
};

/// 0 when every thread of the grid has returned; otherwise `error` says why not.
typedef int KvHostLaunchFn(const KvHostLaunch *);

#endif // KVCC_CODEGEN_CUDA_PRELUDE_HOST_ABI_H
