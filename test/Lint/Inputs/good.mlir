// Everything that could be mistaken for a finding. A note: `CHECK` in prose is fine, so is this colon.
// REQUIRES: nvrtc
// RUN: mkdir -p %t.dir
// RUN: kvcc-opt %s -o %t.once && kvcc-opt %s -o %t.dir/twice
// RUN: diff %t.once %t.dir/twice
// DEFINE: %{fill} = env KVCC_CACHE_DIR=%t.cache kvcc
// RUN: %{fill} compile
// RUN: env KVCC_CACHE_DIR=%t.cache kvcc cache list | count 1
// RUN: env KVCC_CACHE=off not kvcc-opt %s --no-such-flag
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file \
// RUN:   | FileCheck %s
// RUN: kvcc-opt %s | FileCheck %s --check-prefix=OTHER --implicit-check-not=fail

// NOTE: upper case, and no directive.
// CHECK-LABEL: @f
// CHECK-SAME: (%[[ARG:.*]]: f32)
// CHECK-COUNT-2: return {{%0|%1}}
// CHECK{LITERAL}: [[1]]
// OTHER-DAG: %c0_i32
func.func private @f()
// -----
// expected-error@+2 {{no}}
// expected-error-re @below 2 {{no}}
// expected-note @unknown{{no}}
func.func private @f()
