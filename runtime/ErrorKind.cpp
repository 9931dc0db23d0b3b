// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Errors with a kind.
#include "runtime/ErrorKind.h"

using namespace llvm;
using namespace kvcc;

namespace {
class KindError : public ErrorInfo<KindError> {
public:
  static char ID;
  KindError(ErrorKind kind, std::string text) : kind(kind), text(std::move(text)) {}
  void log(raw_ostream &os) const override { os << text; }
  std::error_code convertToErrorCode() const override { return inconvertibleErrorCode(); }
  ErrorKind kind;
  std::string text;
};
char KindError::ID;
} // namespace

Error kvcc::withKind(ErrorKind kind, Error error) {
  if (!error || error.isA<KindError>())
    return error;
  return make_error<KindError>(kind, toString(std::move(error)));
}

std::pair<ErrorKind, std::string> kvcc::takeKind(Error error) {
  std::pair<ErrorKind, std::string> result(ErrorKind::InvalidArgument, "");
  handleAllErrors(
      std::move(error), [&](const KindError &e) { result = {e.kind, e.text}; },
      [&](const ErrorInfoBase &e) { result.second += (result.second.empty() ? "" : "; ") + e.message(); });
  return result;
}
