// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Enumerations of the kv dialect.
#ifndef KVCC_DIALECT_KVENUMS_TD
#define KVCC_DIALECT_KVENUMS_TD

include "mlir/IR/EnumAttr.td"
include "dialect/KvDialect.td"

class Kv_Enum<string name, string summary, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::kvcc::kv";
  let genSpecializedAttr = 0;
}

def Kv_Map : Kv_Enum<"Map", "how a real number becomes a code", [
  I32EnumAttrCase<"None", 0, "none">,
  I32EnumAttrCase<"Sym", 1, "sym">,
  I32EnumAttrCase<"SymFull", 2, "sym_full">,
  I32EnumAttrCase<"SymSigned", 3, "sym_signed">,
  I32EnumAttrCase<"Asym", 4, "asym">,
  I32EnumAttrCase<"Hybrid", 5, "hybrid">]>;

def Kv_DiagStat : Kv_Enum<"DiagStat", "the statistic that gives a diagonal transform its factors", [
  I32EnumAttrCase<"SqrtMax", 0, "sqrt_max">,
  I32EnumAttrCase<"Rms", 1, "rms">,
  I32EnumAttrCase<"Tensor", 2, "tensor">,
  I32EnumAttrCase<"Given", 3, "given">]>;

def Kv_Placement : Kv_Enum<"Placement", "where a scale is multiplied in", [
  I32EnumAttrCase<"None", 0, "none">,
  I32EnumAttrCase<"Accumulator", 1, "accumulator">,
  I32EnumAttrCase<"Result", 2, "result">,
  I32EnumAttrCase<"Operand", 3, "operand">,
  I32EnumAttrCase<"Element", 4, "element">]>;

def Kv_Role : Kv_Enum<"Role", "which side of attention a tile belongs to", [
  I32EnumAttrCase<"Key", 0, "key">, I32EnumAttrCase<"Value", 1, "value">]>;

def Kv_Compute : Kv_Enum<"Compute", "the arithmetic of products with codes", [
  I32EnumAttrCase<"F32", 0, "f32">, I32EnumAttrCase<"Int16", 1, "int16">, I32EnumAttrCase<"Int8", 2, "int8">,
  I32EnumAttrCase<"F16", 3, "f16">, I32EnumAttrCase<"BF16", 4, "bf16">]>;

def Kv_Order : Kv_Enum<"Order", "what the elements of a block are ordered for", [
  I32EnumAttrCase<"Tiles", 0, "tiles">, I32EnumAttrCase<"Fragments", 1, "fragments">,
  I32EnumAttrCase<"FragmentRows", 2, "fragment_rows">, I32EnumAttrCase<"FragmentColumns", 3, "fragment_columns">]>;

def Kv_Reach : Kv_Enum<"Reach", "which earlier tokens a layer attends to", [
  I32EnumAttrCase<"Full", 0, "full">, I32EnumAttrCase<"Sliding", 1, "sliding">,
  I32EnumAttrCase<"Chunked", 2, "chunked">]>;

def Kv_Prefer : Kv_Enum<"Prefer", "what a choice among schemes should be best at", [
  I32EnumAttrCase<"Quality", 0, "quality">, I32EnumAttrCase<"Speed", 1, "speed">,
  I32EnumAttrCase<"Memory", 2, "memory">]>;

def Kv_TargetKind : Kv_Enum<"TargetKind", "the kind of a target", [
  I32EnumAttrCase<"Cpu", 0, "cpu">, I32EnumAttrCase<"Cuda", 1, "cuda">]>;

#endif
