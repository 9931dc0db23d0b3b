// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What MLIR reports, as an error of LLVM.
#ifndef KVCC_RUNTIME_DIAGNOSTICS_H
#define KVCC_RUNTIME_DIAGNOSTICS_H

#include "mlir/IR/Diagnostics.h"
#include "llvm/Support/Error.h"

namespace kvcc {

/// Collects the errors that MLIR reports while it lives.
class Diagnostics {
public:
  explicit Diagnostics(mlir::MLIRContext &context)
      : handler(&context, [this](mlir::Diagnostic &diagnostic) {
          if (diagnostic.getSeverity() == mlir::DiagnosticSeverity::Error)
            text += (text.empty() ? "" : "; ") + diagnostic.str();
        }) {}
  const std::string &getText() const { return text; }
  llvm::Error takeError() { return llvm::createStringError(text.empty() ? "compilation failed" : text); }

private:
  std::string text;
  mlir::ScopedDiagnosticHandler handler;
};

} // namespace kvcc

#endif
