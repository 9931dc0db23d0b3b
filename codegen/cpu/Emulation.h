// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs the code of a level on a processor that lacks its instructions, for tests.
#ifndef KVCC_CODEGEN_CPU_EMULATION_H
#define KVCC_CODEGEN_CPU_EMULATION_H

namespace llvm {
class Module;
}

namespace kvcc::cpu {

/// Replaces the products of small integers and the tables that ProductBuilder calls by name by plain vector code with
/// the same results, to the saturating bit. All else in a kernel is portable: LLVM splits its vectors for the processor
/// at hand.
void emulateProducts(llvm::Module &module);

} // namespace kvcc::cpu

#endif
