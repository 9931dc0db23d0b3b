// RUN: kvcc-opt %s
// RUN: kvcc-opt %s -o %t.unread
// RUN: kvcc-opt %s -o %t
// RUN: kvcc-opt %s \
// RUN:   | kvcc-opt > /dev/null
func.func private @f()
