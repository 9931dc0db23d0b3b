// RUN: not kvcc-opt %s
// CHECK-LABEL: @f
func.func private @f()
