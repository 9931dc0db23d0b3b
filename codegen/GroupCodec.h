// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv::Quantizer as code: how a group of numbers gets its scale and zero, and a number its code.
#ifndef KVCC_CODEGEN_GROUPCODEC_H
#define KVCC_CODEGEN_GROUPCODEC_H

#include "codegen/LaneBuilder.h"

namespace kvcc {

/// Builds, for a group in each lane, what Quantizer does, bit for bit.
class GroupCodec {
public:
  GroupCodec(LaneBuilder &b, kv::QuantAttr quant);

  /// A scale and a zero (null without zeros) as their types hold them, in f32. The sign of a hybrid scale says whether
  /// the zero counts.
  struct Parameters {
    mlir::Value scale, zero;
  };
  /// Number `index` of every lane's group.
  using Numbers = llvm::function_ref<mlir::Value(mlir::Value index)>;
  Parameters choose(int64_t size, Numbers numbers);

  /// What numbers of the group are multiplied by before they are rounded.
  mlir::Value getInverse(const Parameters &group);
  /// The code of a number, in the bits of an element; there may be others from bit kFirstOtherBit on.
  mlir::Value encode(mlir::Value number, const Parameters &group, mlir::Value inverse);
  static constexpr int64_t kFirstOtherBit = 22;
  mlir::Value decode(mlir::Value code, const Parameters &group);

private:
  mlir::Value roundTo(mlir::Value number, float largest);
  Parameters chooseFor(mlir::Value extreme, mlir::Value min, mlir::Value max, mlir::Value shrink, int64_t size,
                       Numbers numbers);
  mlir::Value getError(int64_t size, Numbers numbers, const Parameters &group, bool squared);
  mlir::Value isAsym(const Parameters &group);
  mlir::Value getMagnitude(const Parameters &group);
  Parameters select(mlir::Value condition, const Parameters &x, const Parameters &y);

  LaneBuilder &b;
  kv::QuantAttr quant;
  mlir::Type element;
  kv::Map map;
  int64_t zeroCode = 0, minCode = 0, maxCode = 0;
};

} // namespace kvcc

#endif
