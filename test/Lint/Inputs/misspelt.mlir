// RUN: kvcc-opt %s -split-input-file -verify-diagnostics | FileCheck %s
// CHEK: @f
// CHECK-NXT: @g
// CHECK-NEXT @h
// CHECK-SAME : @h
// CHECKNEXT: @h
// check-next: @h
// CHECK_DAG: @h
// REQUIRE: nvrtc
// expected-eror @below {{no}}
// expected_error @below {{no}}
// expcted-error@+1 {{no}}
// CHECK: @i
func.func private @f()
