// RUN: kvcc-opt %s | FileCheck %s
// CHECK-LABEL: @f
// CHECK: return %0 : f32
func.func private @f()
