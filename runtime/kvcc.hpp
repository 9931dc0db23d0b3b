// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc.h for C++17: handles that are freed by themselves, and errors as exceptions. Nothing else; kvcc.h says what the
// functions do.
//
//   kvcc::Context context;
//   auto options = kvcc::sized<kvcc_compile_options>();
//   options.model = "config.json", options.scheme = "innerq-small", options.target = "cpu";
//   kvcc::Program program = context.compile(options);
#ifndef KVCC_HPP
#define KVCC_HPP

#include "kvcc.h"

#include <memory>
#include <stdexcept>
#include <string>

namespace kvcc {

/// What a function of kvcc.h returned other than KVCC_OK, and kvcc_last_message().
class Error : public std::runtime_error {
public:
  Error(kvcc_status status, const std::string &message) : std::runtime_error(message), code(status) {}
  kvcc_status status() const noexcept { return code; }

private:
  kvcc_status code;
};

inline void check(kvcc_status status) {
  if (status != KVCC_OK)
    throw Error(status, kvcc_last_message());
}

/// The tokens of a snapshot, whatever its scheme.
inline int64_t snapshotTokens(const void *bytes, size_t length) {
  int64_t tokens = 0;
  check(kvcc_snapshot_tokens(bytes, length, &tokens));
  return tokens;
}

/// A structure of kvcc.h: zeros, and `size` as it has to be.
template <typename T> T sized() {
  T structure = {};
  structure.size = sizeof(T);
  return structure;
}

/// The kernels of a model. Can be moved, not copied; one that was moved from can only be assigned to or destroyed.
class Program {
public:
  /// Takes over a handle.
  explicit Program(kvcc_program *program) noexcept : handle(program) {}
  kvcc_program *get() const noexcept { return handle.get(); }

  kvcc_program_info info() const {
    auto result = sized<kvcc_program_info>();
    check(kvcc_program_get_info(get(), &result));
    return result;
  }
  kvcc_layer_info layer(int32_t index) const {
    auto result = sized<kvcc_layer_info>();
    check(kvcc_program_get_layer(get(), index, &result));
    return result;
  }
  kvcc_page_layout pageLayout(int32_t index) const {
    auto result = sized<kvcc_page_layout>();
    check(kvcc_program_get_page_layout(get(), index, &result));
    return result;
  }
  int64_t pagesFor(int32_t layer, int64_t tokens) const {
    int64_t pages = 0;
    check(kvcc_pages_for(get(), layer, tokens, &pages));
    return pages;
  }
  int64_t quantizedTokens(int32_t layer, int64_t tokens) const {
    int64_t quantized = 0;
    check(kvcc_quantized_tokens(get(), layer, tokens, &quantized));
    return quantized;
  }
  size_t workspaceBytes(int32_t layer, int64_t batch, int64_t maxTokens) const {
    size_t bytes = 0;
    check(kvcc_workspace_bytes(get(), layer, batch, maxTokens, &bytes));
    return bytes;
  }
  int64_t sharedPages(int32_t layer, int64_t tokens) const {
    int64_t pages = 0;
    check(kvcc_shared_pages(get(), layer, tokens, &pages));
    return pages;
  }
  size_t snapshotBytes(int32_t layer, int64_t tokens) const {
    size_t bytes = 0;
    check(kvcc_snapshot_bytes(get(), layer, tokens, &bytes));
    return bytes;
  }
  void append(int32_t layer, const kvcc_append_args &args, void *stream = nullptr) const {
    check(kvcc_append(get(), layer, &args, stream));
  }
  /// Returns the length that is left.
  int64_t rollback(int32_t layer, int64_t tokens, int64_t count) const {
    int64_t left = 0;
    check(kvcc_rollback(get(), layer, tokens, count, &left));
    return left;
  }
  void fork(int32_t layer, const kvcc_fork_args &args, void *stream = nullptr) const {
    check(kvcc_fork(get(), layer, &args, stream));
  }
  void adopt(int32_t layer, const kvcc_memory &memory, int32_t slot) const {
    check(kvcc_adopt(get(), layer, &memory, slot));
  }
  void snapshot(int32_t layer, const kvcc_snapshot_args &args, void *stream = nullptr) const {
    check(kvcc_snapshot(get(), layer, &args, stream));
  }
  /// Returns the length of the sequence.
  int64_t restore(int32_t layer, kvcc_snapshot_args args, bool requantize = false, void *stream = nullptr) const {
    check(kvcc_restore(get(), layer, &args, requantize, stream));
    return args.tokens;
  }
  void attend(int32_t layer, const kvcc_attend_args &args, void *stream = nullptr) const {
    check(kvcc_attend(get(), layer, &args, stream));
  }
  void merge(int32_t layer, const kvcc_merge_args &args, void *stream = nullptr) const {
    check(kvcc_merge(get(), layer, &args, stream));
  }

private:
  struct Destroy {
    void operator()(kvcc_program *program) const noexcept { kvcc_program_destroy(program); }
  };
  std::unique_ptr<kvcc_program, Destroy> handle;
};

/// A kernel cache, a compiler and a pool of threads. Moves as Program does; programs may outlive it.
class Context {
public:
  Context() : Context(nullptr) {}
  explicit Context(const kvcc_context_options &options) : Context(&options) {}
  kvcc_context *get() const noexcept { return handle.get(); }

  Program compile(const kvcc_compile_options &options) const {
    kvcc_program *program = nullptr;
    check(kvcc_compile(get(), &options, &program));
    return Program(program);
  }

private:
  explicit Context(const kvcc_context_options *options) {
    kvcc_context *context = nullptr;
    check(kvcc_context_create(options, &context));
    handle.reset(context);
  }
  struct Destroy {
    void operator()(kvcc_context *context) const noexcept { kvcc_context_destroy(context); }
  };
  std::unique_ptr<kvcc_context, Destroy> handle;
};

} // namespace kvcc

#endif
