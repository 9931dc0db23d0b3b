# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Writes the digest of everything that decides what a plan compiles to, for the keys of the kernel cache.
list(SORT FILES)
set(all "")
foreach(file IN LISTS FILES)
  file(SHA256 ${file} digest)
  string(APPEND all ${digest})
endforeach()
string(SHA256 digest "${all}")
string(SUBSTRING ${digest} 0 16 digest)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define KVCC_COMPILER_DIGEST \"${digest}\"\n")
