// RUN: kvcc-opt %s | FileCheck %s --check-prefixes=A,B
// A: @f
// B-NEXT: }
// CHECK: @f
// BNEXT: }
func.func private @f()
