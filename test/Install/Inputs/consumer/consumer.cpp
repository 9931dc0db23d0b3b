// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// consumer MODEL: the C++ wrapper as its users use it. Prints what happened; the test compares.
#include <kvcc.hpp>

#include <cstdio>
#include <utility>
#include <vector>

static_assert(!std::is_copy_constructible_v<kvcc::Program> && !std::is_copy_assignable_v<kvcc::Context>);
static_assert(std::is_nothrow_move_constructible_v<kvcc::Program> && std::is_nothrow_move_assignable_v<kvcc::Context>);

int main(int, char **argv) {
  auto options = kvcc::sized<kvcc_compile_options>();
  options.model = argv[1];
  options.scheme = "innerq-small";
  options.target = "cpu";
  kvcc::Program program(nullptr);
  {
    auto contextOptions = kvcc::sized<kvcc_context_options>();
    contextOptions.threads = 2;
    kvcc::Context first(contextOptions), context(std::move(first));
    std::printf("moved context: %d %d\n", first.get() == nullptr, context.get() != nullptr);
    kvcc::Program compiled = context.compile(options);
    program = std::move(compiled);
    std::printf("moved program: %d %d\n", compiled.get() == nullptr, program.get() != nullptr);
  } // a program may outlive its context
  std::printf("layers: %d\n", int(program.info().layers));
  std::printf("head_dim: %d\n", int(program.layer(0).head_dim));
  std::printf("pages for 0 and 1000 tokens: %d %d\n", int(program.pagesFor(0, 0)), program.pagesFor(0, 1000) > 0);
  std::printf("workspace: %d\n", program.workspaceBytes(0, 1, 100000) > 0);
  std::printf("rollback: %d\n", int(program.rollback(0, 1000, 10)));
  std::printf("shared pages: %d\n", program.sharedPages(0, 100000) > program.sharedPages(0, 0));
  const std::vector<char> nothing(program.snapshotBytes(0, 0));
  std::printf("snapshot of nothing: %d\n", nothing.size() > size_t(program.layer(0).slot_bytes));
  try {
    kvcc::snapshotTokens(nothing.data(), nothing.size());
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("tokens: %s\n", error.what());
  }
  try {
    program.fork(0, kvcc::sized<kvcc_fork_args>());
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("fork: %s\n", error.what());
  }
  try {
    program.snapshot(0, kvcc::sized<kvcc_snapshot_args>());
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("snapshot: %s\n", error.what());
  }
  try {
    program.restore(0, kvcc::sized<kvcc_snapshot_args>());
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("restore: %s\n", error.what());
  }
  try {
    program.layer(1000);
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("status %d: %s\n", int(error.status()), error.what());
  }
  try {
    options.scheme = "no-such-scheme";
    kvcc::Context().compile(options);
    std::printf("no error\n");
  } catch (const std::exception &error) {
    std::printf("compile: %s\n", error.what());
  }
  try {
    auto tokens = kvcc::sized<kvcc_append_args>();
    tokens.batch = 1;
    program.append(0, tokens);
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("append: %s\n", error.what());
  }
  try {
    auto step = kvcc::sized<kvcc_attend_args>();
    step.batch = 1;
    program.attend(0, step);
    std::printf("no error\n");
  } catch (const kvcc::Error &error) {
    std::printf("attend: %s\n", error.what());
  }
}
