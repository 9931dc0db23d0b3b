// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An environment variable that a test sets or unsets for one scope and that is restored afterwards.

#ifndef KVCC_TEST_UNIT_SCOPEDVARIABLE_H
#define KVCC_TEST_UNIT_SCOPEDVARIABLE_H

#include <cstdlib>
#include <optional>
#include <string>

namespace kvcc {

/// Not thread safe, as the environment is not.
class ScopedVariable {
public:
  /// A null `value` unsets the variable.
  ScopedVariable(const char *name, const char *value) : name(name) {
    if (const char *old = std::getenv(name))
      previous = old;
    set(value);
  }
  ~ScopedVariable() { set(previous ? previous->c_str() : nullptr); }
  ScopedVariable(const ScopedVariable &) = delete;
  ScopedVariable &operator=(const ScopedVariable &) = delete;

private:
  void set(const char *value) {
    if (value)
      ::setenv(name, value, /*overwrite=*/1);
    else
      ::unsetenv(name);
  }

  const char *name;
  std::optional<std::string> previous;
};

} // namespace kvcc

#endif // KVCC_TEST_UNIT_SCOPEDVARIABLE_H
