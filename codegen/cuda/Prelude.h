// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The texts that emitted CUDA is compiled against, embedded in the library by the build.
#ifndef KVCC_CODEGEN_CUDA_PRELUDE_H
#define KVCC_CODEGEN_CUDA_PRELUDE_H

#include "llvm/ADT/StringRef.h"

namespace kvcc {

llvm::StringRef devicePrelude();      ///< prelude/device.cuh: device functions for NVRTC.
llvm::StringRef hostPrelude();        ///< prelude/host.h: the same names on the host.
llvm::StringRef hostRuntimePrelude(); ///< prelude/host_runtime.h: fibers and collectives.
llvm::StringRef hostRacesPrelude();   ///< prelude/host_races.h: which accesses no barrier orders.
llvm::StringRef hostAbiPrelude();     ///< prelude/host_abi.h: how a host kernel is launched.

} // namespace kvcc

#endif
