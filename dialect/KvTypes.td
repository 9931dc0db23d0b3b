// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Types of the kv dialect.
#ifndef KVCC_DIALECT_KVTYPES_TD
#define KVCC_DIALECT_KVTYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "dialect/KvAttrs.td"

class Kv_Type<string name, string typeMnemonic> : TypeDef<Kv_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Kv_CacheType : Kv_Type<"Cache", "cache"> {
  let summary = "the KV cache of one attention layer, for a batch of sequences";
  let description = [{
    `kv_heads` heads of `head_dim` channels. Quantized tokens are stored as `key` and `value` say; the
    tokens of the `window` are stored in `dtype`.

    Constraints:
    - (C1) kv_heads is positive;
    - (C2) head_dim is a multiple of 32, from 32 to 256;
    - (C3) dtype is f16, bf16 or f32;
    - (C4) the channels of a group divide head_dim;
    - (C5) the tokens of a group divide 32, the tokens of a block, and are 1 if the window's flush is 1;
    - (C6) the size of a Hadamard transform divides head_dim;
    - (C7) keys whose diagonal is folded into weights have it tied;
    - (C8) groups of the hybrid map span more than one of the reduced indices (channels for keys, tokens for
      values);
    - (C9) values have no feedback.

    Example:
    ```mlir
    !kv.cache<kv_heads = 8, head_dim = 128, dtype = f16,
              key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
              value = <i2, map = sym, group = 32x1, scale = f16>,
              window = <sink = 32, recent = 96, flush = 32>>
    ```
  }];
  let parameters = (ins "int64_t":$kvHeads, "int64_t":$headDim, "::mlir::Type":$dtype,
                        "::kvcc::kv::QuantAttr":$key, "::kvcc::kv::QuantAttr":$value,
                        "::kvcc::kv::WindowAttr":$window);
  let assemblyFormat = [{
    `<` `kv_heads` `=` $kvHeads `,` `head_dim` `=` $headDim `,` `dtype` `=` $dtype `,`
        `key` `=` $key `,` `value` `=` $value `,` `window` `=` $window `>`
  }];
  let genVerifyDecl = 1;
}

def Kv_BlockType : Kv_Type<"Block", "block"> {
  let summary = "tokens x channels of one KV head as they stand in the cache";
  let description = [{
    `!kv.block<key, 32x128xi3, packing = <16x4>>`: the codes (or scales, or numbers) of 32 tokens, in the
    order of the packing. `role` says which index is free and which is reduced: tokens and channels for
    keys, channels and tokens for values. The block stays where it is; what consumes it decides how to
    read it.

    Constraints:
    - (C1) the packing's tile divides the free and the reduced extent;
    - (C2) both extents are positive;
    - (C3) the element is one of i2..i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16, f32.
  }];
  let parameters = (ins EnumParameter<Kv_Role>:$role, "int64_t":$tokens, "int64_t":$channels,
                        "::mlir::Type":$element, "::kvcc::kv::PackingAttr":$packing);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isKey() const { return getRole() == ::kvcc::kv::Role::Key; }
    /// Whether the elements are codes rather than numbers. Scales may have a type that codes have too; they never stand
    /// in tiles of several reduced indices.
    bool isCodes() const {
      return ::mlir::isa<::mlir::IntegerType>(getElement()) ||
             (::kvcc::kv::isCodeElement(getElement()) && getPacking().getReduceTile() > 1);
    }
    int64_t getFreeExtent() const { return isKey() ? getTokens() : getChannels(); }
    int64_t getReduceExtent() const { return isKey() ? getChannels() : getTokens(); }
    int64_t getBytes() const;
  }];
}

def Kv_StateType : Kv_Type<"State", "state"> {
  let summary = "the running maximum, sum and output of an online softmax over a tile of query heads";
  let description = [{
    `!kv.state<4x128>`: 4 query heads, 128 channels. Tile operations update it in place.
    Constraint: (C1) both extents are positive.
  }];
  let parameters = (ins "int64_t":$heads, "int64_t":$headDim);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

#endif
