// RUN: not kvcc-opt %s
// expected-error @below {{no}}
func.func private @f()
