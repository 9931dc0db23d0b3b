// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tile functions for tensor cores: operations are lowered in their order, since what a tile becomes (registers of
// fragments, shared memory, words that are loaded where they are needed) is more than a type could say.
#include "codegen/cuda/FragmentBuilder.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/TypeSwitch.h"

#include <cmath>
#include <limits>
#include <numbers>

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cuda;

namespace {

constexpr uint32_t kOneF16 = 0x3c003c00, kOneBf16 = 0x3f803f80;
/// Queries are rounded as if their largest element were in [2^13, 2^14); where scales fold into them, in [1/2, 1), so
/// that any scale may.
constexpr int32_t kQueryExponent = 13, kFoldedQueryExponent = -1;
/// How far logits may be above the maximum that weights are relative to, in powers of two, before it is raised. Weights
/// that scales of any size fold into are never above 1.
float getSlack(int64_t exponent) { return exponent < 0 ? float(-exponent) : 4; }

/// What multiplies a block: halves of B fragments, rows in groups for scales that were folded in.
struct Operand {
  Type half;
  int64_t tiles = 0, groups = 1, pairs = 0; ///< tiles of eight heads, groups of free indices, pairs of reduced ones
  bool hasExponents = false;                ///< of codes, so that rows of odd tiles may have registers of their own
  SmallVector<Value> words;                 ///< [tiles][groups][2][pairs]
  SmallVector<Value> plain;                 ///< [tiles][pairs], before exponents
  SmallVector<Value> rest;                  ///< [tiles][pairs]: what rounding to bf16 left over; may be empty

  Value &at(int64_t tile, int64_t group, int64_t parity, int64_t pair) {
    return words[size_t(((tile * groups + group) * 2 + parity) * pairs + pair)];
  }
};

/// The state of an online softmax: arrays in registers.
struct State {
  StateType type;
  int64_t heads, tiles, rows; ///< tiles of eight heads, tiles of 16 channels
  Value outputs;              ///< [tiles][rows][4]
  Value maxima, sums;         ///< [tiles][2]; maxima less the exponent of weights
  Value offsets;              ///< [tiles][groups][2]: what is to be added to the outputs of a group of channels
  Value laneOffsets;          ///< [tiles][2]: the same, of group gid in each lane
  int64_t groups = 0;         ///< of channels
};

class FragmentLowering {
public:
  FragmentLowering(func::FuncOp func, int64_t warps)
      : func(func), warps(warps), b(func.getLoc(), OpBuilder::atBlockBegin(&func.front())) {}

  LogicalResult run() {
    b.thread = gpu::ThreadIdOp::create(b, gpu::Dimension::x);
    Value lane = arith::RemUIOp::create(b, b.thread, b.index(kWarp));
    b.warp = arith::DivUIOp::create(b, b.thread, b.index(kWarp));
    b.gid = arith::DivUIOp::create(b, lane, b.index(4));
    b.tig = arith::RemUIOp::create(b, lane, b.index(4));
    Type bytes = MemRefType::get({ShapedType::kDynamic}, b.getI8Type(), MemRefLayoutAttrInterface(),
                                 gpu::AddressSpaceAttr::get(b.getContext(), gpu::AddressSpace::Workgroup));
    dynamic = gpu::DynamicSharedMemoryOp::create(b, cast<MemRefType>(bytes));
    // Generic memory from here on: views of it are pointers, whatever their extents.
    dynamic = memref::MemorySpaceCastOp::create(b, MemRefType::get({ShapedType::kDynamic}, b.getI8Type()), dynamic);
    int64_t ring = 0;
    func.walk([&](TileRingOp op) { ring = int64_t(op.getStages()) * int64_t(op.getBytes()); });
    func.walk([&](TileInitStateOp op) {
      StateType state = op.getState().getType();
      warpBytes = kvcc::getWarpBytes(ring, state.getHeads(), state.getHeadDim());
    });

    SmallVector<Operation *> ops;
    func.walk<WalkOrder::PreOrder>([&](Operation *op) {
      if (isa<KvDialect>(op->getDialect()))
        ops.push_back(op);
    });
    for (Operation *op : ops) {
      b.setInsertionPoint(op);
      b.setLoc(op->getLoc());
      LogicalResult result =
          TypeSwitch<Operation *, LogicalResult>(op)
              .Case<TileLoadQueryOp, TileScaleChannelsOp, TileRotateOp, TileDotChannelsOp, TileWarpOp, TileAdvanceOp,
                    TileRingOp, TileFetchOp, TileCommitOp, TileAwaitOp, TilePrefetchOp, TileLoadOp, TilePrepareOp,
                    TileFoldOp, TileScoreOp, TileSoftcapOp, TileMaskOp, TileInitStateOp, TileSoftmaxStepOp,
                    TileAccumulateOp, TileScaleStateOp, TileShiftStateOp, TileRestoreOp, TileJoinSinksOp, TileArriveOp,
                    TileMergeOp, TileStoreResultOp>([&](auto op) { return lower(op); })
              .Default(
                  [](Operation *op) { return op->emitError("expected an operation with a lowering to fragments"); });
      if (failed(result))
        return failure();
    }
    for (Operation *op : llvm::reverse(ops))
      op->erase();
    return success();
  }

private:
  int64_t getThreads() const { return warps * kWarp; }
  static ArrayRef<int64_t> shapeOf(Value tile) { return cast<ShapedType>(tile.getType()).getShape(); }
  static int64_t tilesOf(int64_t heads) { return (heads + 7) / 8; }

  /// How many rows of a tile or a state of `rows` are there: those of all queries, see kv.tile.load_query.
  Value getRows(int64_t rows) { return rowsThere ? rowsThere : b.index(rows); }
  Value viewVector(Value bytes, Value offset, int64_t extent) {
    return memref::ViewOp::create(b, MemRefType::get({extent}, b.getF32Type()), bytes, offset, ValueRange());
  }
  Value registers(int64_t count) { return b.registers({count}); }
  Value load(Value array, int64_t at) { return b.load(array, b.index(at)); }
  void store(Value value, Value array, int64_t at) { b.store(value, array, b.index(at)); }
  /// The index of row j of this lane's columns, at most the last that is there.
  Value headOf(int64_t tile, int64_t j, int64_t heads) {
    Value row = b.addIndex(b.mulIndex(b.tig, 2), 8 * tile + j);
    if (!rowsThere)
      return b.minIndex(row, heads - 1);
    return arith::MinUIOp::create(b, row, arith::SubIOp::create(b, rowsThere, b.index(1)));
  }

  //===-- The query, in shared memory ---------------------------------------------------===//

  // A tile begins as what its elements are made of, in registers, on its way while other copies begin. Where a thread
  // needs the elements of others, all go to dynamic shared memory, behind that of the warps.

  /// An element of a tile of the query that this thread has: the one at `first` plus the thread. `isThere` is null
  /// where it always is.
  struct Element {
    Value row, column, isThere;
    int64_t first;
  };
  /// This thread's elements of tiles of a shape. Those that are not there stand for one that is.
  ArrayRef<Element> getOwn(ArrayRef<int64_t> shape) {
    if (!own.empty())
      return own;
    int64_t threads = getThreads(), channels = shape[1], count = shape[0] * channels,
            least = rowsThere ? fewestRows * channels : count;
    for (int64_t first = 0; first < count; first += threads) {
      Value row, column, isThere;
      if (channels % threads == 0) { // all threads have a part of one row
        row = b.index(first / channels);
        column = b.addIndex(b.thread, first % channels);
      } else {
        Value i = b.addIndex(b.thread, first);
        row = arith::DivUIOp::create(b, i, b.index(channels));
        column = arith::RemUIOp::create(b, i, b.index(channels));
      }
      if (first + threads > least) {
        isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, getRows(shape[0]));
        row = arith::SelectOp::create(b, isThere, row, b.index(0));
      }
      own.push_back({row, column, isThere, first});
    }
    return own;
  }
  /// Memory for a tile, in shared memory.
  Value makeTile(ArrayRef<int64_t> shape) {
    auto type = MemRefType::get({shape[0] * shape[1]}, b.getF32Type());
    Value at =
        b.index(warps * warpBytes + kvcc::kConstantBytes + queryTiles++ * shape[0] * shape[1] * int64_t(sizeof(float)));
    return memref::ViewOp::create(b, type, dynamic, at, ValueRange());
  }
  /// Stores this thread's elements of a tile.
  Value storeOwn(ArrayRef<int64_t> shape, ArrayRef<Value> numbers) {
    Value memory = makeTile(shape);
    for (auto [element, number] : zip_equal(getOwn(shape), numbers)) {
      OpBuilder::InsertionGuard guard(b);
      if (element.isThere) {
        auto branch = scf::IfOp::create(b, element.isThere, /*withElseRegion=*/false);
        b.setInsertionPointToStart(branch.thenBlock());
      }
      b.store(number, memory, placeOf(shape, element.row, element.column));
    }
    return memory;
  }
  /// Whether nothing reads the tile after this operation.
  static bool isLastUse(Value tile, Operation *op) {
    return llvm::all_of(tile.getUsers(), [&](Operation *user) {
      return user == op || (user->getBlock() == op->getBlock() && user->isBeforeInBlock(op));
    });
  }
  /// Brings to shared memory what this operation and those after it read.
  void shareTiles(Operation *op) {
    if (pending.empty())
      return;
    for (auto &[tile, made] : pending) {
      if (isLastUse(tile, op) && !llvm::is_contained(op->getOperands(), tile))
        continue;
      SmallVector<Value> numbers;
      for (auto [i, number] : enumerate(made.loaded)) {
        numbers.push_back(b.mul(b.toF32(number), b.f32(made.scale)));
        for (ArrayRef<Value> factors : made.factors)
          numbers.back() = b.mul(numbers.back(), factors[i]);
      }
      tiles[tile] = storeOwn(shapeOf(tile), numbers);
    }
    pending.clear();
    b.barrier();
  }

  Value placeOf(ArrayRef<int64_t> shape, Value head, Value channel) {
    return b.add(b.mulIndex(head, shape[1]), channel);
  }
  Value loadTile(Value tile, Value head, Value channel) {
    return b.load(tiles.at(tile), placeOf(shapeOf(tile), head, channel));
  }

  LogicalResult lower(TileLoadQueryOp op) {
    if (op.getQueries()) {
      fewestRows = int64_t(*op.getHeads());
      rowsThere = b.mulIndex(op.getQueries(), fewestRows);
    }
    auto shape = shapeOf(op.getResult());
    Making &made = pending[op.getResult()];
    made.scale = op.getScale().convertToFloat();
    // A query's elements are neighbours.
    int64_t heads = int64_t(op.getHeads().value_or(uint64_t(shape[0]))), each = heads * shape[1];
    Value begin = b.add(op.getOffset(), b.thread);
    for (const Element &element : getOwn(shape)) {
      Value at;
      if (each % getThreads() == 0) {
        int64_t query = element.first / each;
        Value after = b.index(element.first % each + query * int64_t(op.getStride().value_or(0)));
        if (element.isThere)
          after = arith::SelectOp::create(b, element.isThere, after, b.index(0));
        at = b.add(begin, after);
      } else {
        std::optional<uint64_t> stride;
        if (op.getStride())
          stride = *op.getStride() / uint64_t(shape[1]);
        Value row = b.getRow(element.row, heads, stride);
        at = b.add(b.add(op.getOffset(), b.mulIndex(row, shape[1])), element.column);
      }
      made.loaded.push_back(b.load(op.getSource(), at));
    }
    return success();
  }

  LogicalResult lower(TileScaleChannelsOp op) {
    auto found = pending.find(op.getTile());
    if (found == pending.end())
      return op.emitError("expected a query that has just been loaded");
    auto shape = shapeOf(op.getResult());
    Value factors = viewVector(op.getFactors(), op.getOffset(), shape[1]);
    Making made = found->second;
    SmallVector<Value> &numbers = made.factors.emplace_back();
    for (const Element &element : getOwn(shape))
      numbers.push_back(b.load(factors, element.column));
    pending[op.getResult()] = std::move(made);
    return success();
  }

  LogicalResult lower(TileRotateOp op) {
    shareTiles(op);
    auto shape = shapeOf(op.getResult());
    Value from = tiles.at(op.getTile()), to = isLastUse(op.getTile(), op) ? from : makeTile(shape);
    auto size = int64_t(op.getSize());
    // A warp takes a row: of each 32 channels, bits of channels are bits of lanes.
    Value lane = b.add(b.mulIndex(b.gid, 4), b.tig), number = b.toI32(lane);
    b.loop(b.warp, getRows(shape[0]), warps, false, [&](Value row) {
      SmallVector<Value> numbers;
      for (int64_t c = 0; c < shape[1]; c += kWarp)
        numbers.push_back(b.load(from, placeOf(shape, row, b.addIndex(lane, c))));
      for (int64_t half = 1; half < std::min(size, kWarp); half *= 2)
        addAcrossLanes(numbers, number, half, int32_t(half));
      for (int64_t half = kWarp; half < size; half *= 2)
        addAcrossRegisters(numbers, size_t(half / kWarp));
      for (auto [i, rotated] : enumerate(numbers))
        b.store(b.mul(rotated, b.f32(getNorm(size))), to, placeOf(shape, row, b.addIndex(lane, int64_t(i) * kWarp)));
    });
    b.barrier();
    tiles[op.getResult()] = to;
    return success();
  }
  /// A stage of a Hadamard transform: sums and differences of numbers whose lanes are `distance` apart, as bit `bit` of
  /// `number` says.
  void addAcrossLanes(MutableArrayRef<Value> numbers, Value number, int64_t bit, int32_t distance) {
    Value isUpper = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, b.bitAnd(number, uint32_t(bit)), b.i32(0));
    Value sign = arith::SelectOp::create(b, isUpper, b.f32(-1), b.f32(1));
    for (Value &x : numbers)
      x = b.fma(x, sign, b.shuffleXor(x, distance));
  }
  /// The same of a lane's own numbers.
  void addAcrossRegisters(MutableArrayRef<Value> numbers, size_t distance) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (i & distance)
        continue;
      Value x = numbers[i], y = numbers[i + distance];
      numbers[i] = b.add(x, y);
      numbers[i + distance] = arith::SubFOp::create(b, x, y);
    }
  }
  /// What makes a Hadamard matrix of ones orthonormal.
  static float getNorm(int64_t size) { return float(1 / std::sqrt(double(size))); }

  /// What a lane has of the vector of a dot product: a warp takes a head.
  ArrayRef<Value> loadVector(TileDotChannelsOp op) {
    SmallVector<Value> &numbers = vectors[op];
    if (!numbers.empty())
      return numbers;
    int64_t channels = shapeOf(op.getTile())[1];
    Value vector = viewVector(op.getVector(), op.getOffset(), channels), lane = b.add(b.mulIndex(b.gid, 4), b.tig);
    for (int64_t c = 0; c < channels; c += kWarp)
      numbers.push_back(b.load(vector, b.addIndex(lane, c)));
    return numbers;
  }

  LogicalResult lower(TileDotChannelsOp op) {
    ArrayRef<Value> factors = loadVector(op);
    shareTiles(op);
    auto shape = shapeOf(op.getTile());
    Value result = b.shared({shape[0], 1}), lane = b.add(b.mulIndex(b.gid, 4), b.tig);
    b.loop(b.warp, getRows(shape[0]), warps, false, [&](Value head) {
      Value sum = b.f32(0);
      for (auto [i, factor] : enumerate(factors))
        sum = b.fma(loadTile(op.getTile(), head, b.addIndex(lane, int64_t(i) * kWarp)), factor, sum);
      sum = b.reduce(sum, [&](Value x, Value y) { return b.add(x, y); });
      if (op.getScale())
        sum = b.mul(sum, b.f32(op.getScale()->convertToFloat()));
      Value isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, lane, b.index(0));
      auto branch = scf::IfOp::create(b, isFirst, /*withElseRegion=*/false);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      b.store(sum, result, {head, b.index(0)});
    });
    b.barrier();
    tiles[op.getResult()] = result;
    return success();
  }

  //===-- Blocks ------------------------------------------------------------------------===//

  LogicalResult lower(TileWarpOp op) {
    op.replaceAllUsesWith(b.warp);
    return success();
  }

  LogicalResult lower(TileAdvanceOp op) {
    op.replaceAllUsesWith(b.advance(op.getMemory(), op.getOffset()));
    return success();
  }

  LogicalResult lower(TileRingOp op) {
    constexpr size_t kMostPending = 8; // elements of a thread that registers have room for beside copies
    if (own.size() > kMostPending)
      shareTiles(op);
    // So are vectors that multiply the query once it is in memory, where it is known where they are.
    func.walk([&](TileDotChannelsOp dot) {
      Operation *offset = dot.getOffset().getDefiningOp();
      if (!offset || (offset->getBlock() == op->getBlock() && offset->isBeforeInBlock(op)))
        (void)loadVector(dot);
    });
    Value first = b.mulIndex(b.warp, warpBytes);
    Value pointer = b.call1("kv_smem_of", b.opaque("kv_smem_ptr"), ValueRange{dynamic});
    rings[op.getMemory()] = b.addBytes(pointer, b.toI32(first));
    return success();
  }

  LogicalResult lower(TileFetchOp op) {
    auto bytes = int64_t(op.getBytes());
    constexpr int64_t kCopy = 16;
    LaneOffset offset{LaneOffset::Lane, kCopy};
    // Copies take offsets of -2048 to 2047 bytes from their source for nothing.
    constexpr int64_t kMiddle = 2048;
    Value lane = b.getLane(offset);
    Value to = b.addBytes(b.addLane(rings.at(op.getRing()), offset), b.toI32(op.getTo()));
    // Where the lane's part begins, kept where the memory is.
    Value &memory = sources[op.getSource()];
    if (!memory) {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfterValue(op.getSource());
      memory = b.advance(op.getSource(), b.addIndex(b.getLane(offset), kMiddle));
    }
    auto copy = [&](int64_t at) {
      auto type = MemRefType::get({kCopy}, b.getI8Type());
      Value from = at < kMiddle ? arith::SubIOp::create(b, op.getOffset(), b.index(kMiddle - at)).getResult()
                                : b.addIndex(op.getOffset(), at - kMiddle);
      Value source = memref::ViewOp::create(b, type, memory, from, ValueRange());
      b.call("kv_cp_async16", {}, {b.addBytes(to, b.i32(int32_t(at))), source});
    };
    int64_t whole = bytes / (kCopy * kWarp) * kCopy * kWarp;
    for (int64_t at = 0; at < whole; at += kCopy * kWarp)
      copy(at);
    if (whole == bytes)
      return success();
    Value isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, b.toI32(lane), b.i32(int32_t(bytes - whole)));
    auto branch = scf::IfOp::create(b, isThere, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    copy(whole);
    return success();
  }

  LogicalResult lower(TilePrefetchOp op) {
    Value lane = b.add(b.mulIndex(b.gid, 4), b.tig);
    b.call("kv_prefetch", {}, {b.advance(op.getSource(), op.getOffset()), b.toI32(lane)}, int64_t(op.getBytes()));
    return success();
  }

  LogicalResult lower(TileCommitOp) {
    b.call("kv_cp_async_commit", {}, {});
    return success();
  }
  LogicalResult lower(TileAwaitOp op) {
    if (auto loop = op->getParentOfType<scf::ForOp>())
      keep(loop.getUpperBound());
    b.call("kv_cp_async_wait_group", {}, {}, int64_t(op.getPending()));
    b.syncWarp();
    return success();
  }

  /// Keeps a number in a register, which the device compiler would rather compute again where it is used.
  void keep(Value number) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointAfterValue(number);
    Value kept = b.call1("kv_opaque_word", number.getType(), number);
    number.replaceAllUsesExcept(kept, kept.getDefiningOp());
  }

  LogicalResult lower(TileLoadOp op) {
    BlockType type = op.getResult().getType();
    BlockMemory memory{type, op.getSource(), op.getOffset(), {}, 0};
    // A constant after what the blocks of an iteration have in common.
    APInt bytes;
    if (auto sum = op.getOffset().getDefiningOp<arith::AddIOp>();
        sum && matchPattern(sum.getRhs(), m_ConstantInt(&bytes))) {
      memory.offset = sum.getLhs();
      memory.bytes = bytes.getSExtValue();
    }
    if (rings.count(op.getSource())) {
      memory.ring = rings.at(op.getSource());
      memory.offset = b.toI32(memory.offset);
    }
    blocks[op.getResult()] = memory;
    return success();
  }

  //===-- What multiplies ---------------------------------------------------------------===//

  LogicalResult lower(TilePrepareOp op) {
    auto shape = shapeOf(op.getTile());
    bool isQuery = cast<VectorType>(op.getTile().getType()).getElementType().isF32();
    if (!op.getElements() || (isQuery && !(op.getScales() && op.getFactor())))
      return op.emitError("expected elements, and of a query scales and a factor, with compute f16");
    Type element = *op.getElements();
    Operand operand;
    if (isQuery) {
      shareTiles(op);
      operand = roundQuery(op, element);
    } else {
      operand = operands.at(op.getTile());
    }
    // What one row of scales folds into, in every block, is prepared again, and gets its exponents then: fewer
    // products.
    bool isFoldedFirst = llvm::all_of(op.getValues().getUsers(), [&](Operation *user) {
      auto fold = dyn_cast<TileFoldOp>(user);
      return fold && fold->getBlock() == op->getBlock() && fold.getScales().getType().getFreeExtent() == 1 &&
             llvm::all_of(fold.getResult().getUsers(), llvm::IsaPred<TilePrepareOp>);
    });
    if (!operand.hasExponents && !isFoldedFirst) {
      operand.hasExponents = true;
      operand.words.assign(size_t(operand.tiles * 2 * operand.pairs), Value());
      for (int64_t tile = 0; tile < operand.tiles; ++tile)
        for (int64_t pair = 0; pair < operand.pairs; ++pair) {
          Value plain = operand.plain[size_t(tile * operand.pairs + pair)];
          int64_t even = getPairExponent(element, shape[1], 0, pair), odd = getPairExponent(element, shape[1], 1, pair);
          operand.at(tile, 0, 0, pair) = b.scaleHalves(plain, even);
          operand.at(tile, 0, 1, pair) = odd == even ? operand.at(tile, 0, 0, pair) : b.scaleHalves(plain, odd);
        }
    }
    if (!op.getSums().use_empty())
      sums[op.getSums()] = sumGroups(op, operand, element);
    operands[op.getValues()] = std::move(operand);
    return success();
  }

  /// Reads B fragments of a query from shared memory: column gid is a head.
  Operand roundQuery(TilePrepareOp op, Type element) {
    auto shape = shapeOf(op.getTile());
    Operand operand;
    operand.half = cast<VectorType>(op.getValues().getType()).getElementType();
    operand.tiles = tilesOf(shape[0]);
    operand.pairs = shape[1] / 8;
    SmallVector<Value> scales;
    // Logits grow with the error of a query: eight bits of it are too few, unless the model has no more.
    auto query = op.getTile().getDefiningOp<TileLoadQueryOp>();
    bool isExact = operand.half.isF16() || (query && query.getSource().getType().getElementType().isBF16());
    float unit = op.getFactor()->convertToFloat() * float(std::exp2(kvcc::getUnitExponent(element)));
    for (int64_t tile = 0; tile < operand.tiles; ++tile) {
      Value head = b.addIndex(b.gid, 8 * tile);
      Value isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, head, getRows(shape[0]));
      Value row = b.minIndex(head, shape[0] - 1), first = b.mulIndex(b.tig, 4);
      SmallVector<Value> numbers;
      Value largest = b.f32(0);
      for (int64_t c = 0; c < shape[1]; c += 16)
        for (int64_t i = 0; i < 4; ++i) {
          Value number = loadTile(op.getTile(), row, b.addIndex(first, c + i));
          numbers.push_back(arith::SelectOp::create(b, isThere, number, b.f32(0)));
          largest = b.max(largest, math::AbsFOp::create(b, numbers.back()));
        }
      // Numbers of bf16 have the range of f32, and are best left as they are.
      Value up = b.f32(1), down = b.f32(1);
      if (operand.half.isF16()) {
        for (int32_t mask : {1, 2})
          largest = b.max(largest, b.shuffleXor(largest, mask));
        constexpr int32_t kSmallest = 27; // 2^-100: a query of zeros needs no power
        Value exponent = arith::MaxUIOp::create(b, b.shift(b.f32ToBits(largest), 23), b.i32(kSmallest));
        bool folds = llvm::any_of(op.getValues().getUsers(), llvm::IsaPred<TileFoldOp>);
        int32_t target = folds ? kFoldedQueryExponent : kQueryExponent;
        down = b.bitsToF32(b.shift(arith::SubIOp::create(b, exponent, b.i32(target)), -23));
        up = b.bitsToF32(b.shift(arith::SubIOp::create(b, b.i32(254 + target), exponent), -23));
      }
      for (int64_t c = 0; c < shape[1] / 16; ++c)
        for (int64_t h = 0; h < 2; ++h) {
          Value low = b.mul(numbers[size_t(4 * c + h)], up), high = b.mul(numbers[size_t(4 * c + 2 + h)], up);
          Value pair = b.pack(operand.half, low, high);
          operand.plain.push_back(pair);
          if (isExact)
            continue;
          auto left = [&](Value number, int64_t i) {
            return arith::SubFOp::create(b, number, b.extract(operand.half, pair, i)).getResult();
          };
          operand.rest.push_back(b.pack(operand.half, left(low, 0), left(high, 1)));
        }
      // From the lanes of a head's column to those of its logits.
      for (int64_t j = 0; j < 2; ++j) {
        Value lane = b.toI32(b.addIndex(b.mulIndex(b.tig, 8), 4 * j));
        scales.push_back(b.mul(operand.half.isF16() ? b.shuffle(down, lane) : down, b.f32(unit)));
      }
    }
    sums[op.getScales()] = scales;
    return operand;
  }

  /// A fragment with the same words in all lanes and rows. In a loop it comes from shared memory, by one instruction:
  /// the device compiler would rather write four registers in every iteration than keep them.
  Value constantA(Operation *op, uint32_t first, uint32_t second) {
    auto make = [&] {
      Value low = b.word(first), high = b.word(second);
      return b.makeA({low, low, high, high});
    };
    std::array<uint32_t, 2> words{first, second};
    auto found = llvm::find(constants, words);
    int64_t at = 16 * (found - constants.begin());
    if (!op->getParentOfType<LoopLikeOpInterface>() || at == kvcc::kConstantBytes)
      return make();
    auto address = [&] { return b.addBytes(constantMemory, b.i32(int32_t(warps * warpBytes + at))); };
    OpBuilder::InsertionGuard guard(b);
    if (found == constants.end()) {
      constants.push_back(words);
      if (!constantMemory) {
        b.setInsertionPointAfterValue(dynamic);
        constantMemory = b.call1("kv_smem_of", b.opaque("kv_smem_ptr"), ValueRange{dynamic});
      }
      // The barrier after the query has been shared stands between this and the loops.
      b.setInsertionPointAfterValue(constantMemory);
      Value isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, b.thread, b.index(0));
      auto branch = scf::IfOp::create(b, isFirst, /*withElseRegion=*/false);
      b.setInsertionPointToStart(branch.thenBlock());
      b.call("kv_sts128", {}, {address(), make()});
    }
    b.setInsertionPoint(op);
    return b.call1("kv_lds128", b.opaque("kv_u32x4"), address());
  }

  /// What products with codes begin with, a kv_f32x4 of each group of columns, of a folded operand for each group of
  /// rows: minus the zero code times the sum. Integers only. Of weights that are folded in every block, which begin
  /// with nothing, the sum alone: it is multiplied when it is added up.
  SmallVector<Value> sumGroups(TilePrepareOp op, Operand &operand, Type element) {
    int64_t columns = shapeOf(op.getTile())[1], group = int64_t(op.getGroup());
    float zeroCode = zeroCodeOf(element);
    auto accumulate = dyn_cast<TileAccumulateOp>(*op.getSums().user_begin());
    bool isSum = accumulate && accumulate.getPlacement() == Placement::Operand, ownRows = false;
    for (int64_t n = 0; n < operand.pairs; ++n)
      ownRows |= getPairExponent(element, columns, 0, n) != getPairExponent(element, columns, 1, n);
    SmallVector<Value> result;
    for (int64_t tile = 0; tile < operand.tiles; ++tile)
      for (int64_t folded = 0; folded < operand.groups; ++folded)
        for (int64_t first = 0; first < columns; first += group) {
          // By a product, which leaves four registers that are known to be equal to nobody, so that nobody copies them.
          Value sum = b.zeroQuad();
          for (int64_t s = first / 16; s < (first + group) / 16; ++s) {
            // Numbers with the exponents of codes are in registers anyway; where rows have registers of their own,
            // numbers as they were before, which need no exponents of zero codes.
            bool isPlain = operand.groups == 1 && (ownRows || isSum) && !operand.plain.empty();
            uint32_t factors[2]; // minus the zero code, or one
            Value pairs[2];
            for (int64_t h = 0; h < 2; ++h) {
              int64_t n = 2 * s + h;
              int64_t up = isPlain ? 0 : getPairExponent(element, columns, 0, n);
              uint32_t factor = isSum ? uint32_t(15 + up) << 10 : 0x8000 | uint32_t(zeroCode) << up;
              factors[h] = factor | factor << 16;
              pairs[h] = isPlain ? operand.plain[size_t(tile * operand.pairs + n)] : operand.at(tile, folded, 0, n);
            }
            sum = b.mma(operand.half, constantA(op, factors[0], factors[1]), pairs[0], pairs[1], sum);
          }
          result.push_back(sum);
        }
    auto softmax = op.getTile().getDefiningOp<TileSoftmaxStepOp>();
    if (softmax && isSummedByPrepare(softmax)) {
      State &state = *states.at(softmax.getState());
      float unit = -float(std::exp2(kvcc::getUnitExponent(element))) / zeroCode;
      for (int64_t i = 0; i < 2 * state.tiles; ++i) {
        Value start = b.element(result[size_t(i / 2)], i % 2, b.getF32Type());
        store(b.fma(start, b.f32(unit), load(state.sums, i)), state.sums, i);
      }
    }
    return result;
  }

  /// Scales or zeros of one group of free indices, one for each reduced index, as words of halves: [pairs].
  SmallVector<Value> loadColumns(const BlockMemory &block, int64_t group) {
    Type type = block.type.getElement();
    int64_t reduce = block.type.getReduceExtent(), pairs = reduce / 8, bytes = type.getIntOrFloatBitWidth() / 8;
    SmallVector<Value> result;
    auto half = b.getF16Type();
    if (block.type.getPacking().getOrder() == Order::Tiles) {
      // Norms of tokens, in their order: four of a k-step.
      for (int64_t s = 0; s < reduce / 16; ++s) {
        WordReader reader(b, block, {LaneOffset::Tig, 4 * bytes}, 16 * s * bytes, bytes);
        for (int64_t h = 0; h < 2; ++h) {
          auto token = [&](int64_t i) { return b.extract(type, reader.get(i * bytes / 4), i % (4 / bytes)); };
          result.push_back(b.pack(half, token(h), token(2 + h)));
        }
      }
      return result;
    }
    WordReader reader(b, block, {LaneOffset::Tig, reduce / 4 * bytes}, group * reduce * bytes, reduce / 16 * bytes);
    for (int64_t n = 0; n < pairs; ++n) {
      if (type.isF16()) {
        result.push_back(reader.get(n));
        continue;
      }
      auto scale = [&](int64_t i) { return b.extract(type, reader.get(i * bytes / 4), i % (4 / bytes)); };
      result.push_back(b.pack(half, scale(2 * n), scale(2 * n + 1)));
    }
    return result;
  }

  LogicalResult lower(TileFoldOp op) {
    const BlockMemory &scales = blocks.at(op.getScales());
    auto element = cast<VectorType>(op.getTile().getType()).getElementType();
    if (element.isF32())
      return foldNorms(op, scales);
    Operand operand = operands.at(op.getTile()), result = operand;
    int64_t reduce = scales.type.getReduceExtent();
    auto mul = [&](Value x, Value y) {
      if (element.isF16())
        return b.call1("kv_mul_f16x2", b.getI32Type(), {x, y});
      auto product = [&](int64_t i) { return b.mul(b.extract(element, x, i), b.extract(b.getF16Type(), y, i)); };
      return b.pack(element, product(0), product(1));
    };
    if (!operand.hasExponents) {
      SmallVector<Value> words = loadColumns(scales, 0);
      for (int64_t tile = 0; tile < operand.tiles; ++tile)
        for (int64_t n = 0; n < operand.pairs; ++n) {
          Value &word = result.plain[size_t(tile * operand.pairs + n)];
          word = mul(word, words[size_t(n)]);
          result.at(tile, 0, 0, n) = result.at(tile, 0, 1, n) = word;
        }
    } else {
      result.groups = scales.type.getFreeExtent();
      result.plain.clear(); // not those of this operand
      result.words.assign(size_t(operand.tiles * result.groups * 2 * operand.pairs), Value());
      for (int64_t group = 0; group < result.groups; ++group) {
        SmallVector<Value> words = loadColumns(scales, group);
        for (int64_t tile = 0; tile < operand.tiles; ++tile)
          for (int64_t n = 0; n < operand.pairs; ++n) {
            Value even = operand.at(tile, 0, 0, n), odd = operand.at(tile, 0, 1, n);
            result.at(tile, group, 0, n) = mul(even, words[size_t(n)]);
            result.at(tile, group, 1, n) = odd == even ? result.at(tile, group, 0, n) : mul(odd, words[size_t(n)]);
          }
      }
    }
    if (op.getZeros())
      offsets[op.getOffsets()] = multiplyZeros(op, operand, result.groups, reduce);
    operands[op.getResult()] = std::move(result);
    return success();
  }

  /// Sums of zeros times what multiplies codes: [tiles][groups][2], or of group gid in each lane [tiles][2]. Zeros are
  /// the rows of A fragments as they are loaded: rows 8 to 15 have the second pair of every two.
  struct Offsets {
    bool isOfLane;
    SmallVector<Value> values;
  };
  Offsets multiplyZeros(TileFoldOp op, const Operand &operand, int64_t groups, int64_t reduce) {
    const BlockMemory &zeros = blocks.at(op.getZeros());
    Offsets result{!zeros.type.isKey() && groups <= 8, {}};
    for (int64_t tile = 0; tile < operand.tiles; ++tile)
      for (int64_t group = 0; group < (result.isOfLane ? 1 : groups); ++group) {
        Value sums[] = {b.zeroQuad(), b.zeroQuad()};
        SmallVector<Value> words;
        if (result.isOfLane) {
          BlockMemory ofLane = zeros;
          Value skip = b.mulIndex(b.minIndex(b.gid, groups - 1), reduce * 2);
          ofLane.offset = b.add(ofLane.offset, ofLane.ring ? b.toI32(skip) : skip);
          words = loadColumns(ofLane, 0);
        } else {
          words = loadColumns(zeros, group);
        }
        for (int64_t n = 0; n < operand.pairs; n += 4) {
          Value a = b.makeA({words[size_t(n)], words[size_t(n + 1)], words[size_t(n + 2)], words[size_t(n + 3)]});
          for (int64_t odd = 0; odd < 2; ++odd) {
            auto plain = [&](int64_t i) { return operand.plain[size_t(tile * operand.pairs + n + i)]; };
            sums[odd] = b.mma(operand.half, a, plain(odd), plain(2 + odd), sums[odd]);
          }
        }
        for (int64_t j = 0; j < 2; ++j)
          result.values.push_back(
              b.add(b.element(sums[0], j, b.getF32Type()), b.element(sums[1], 2 + j, b.getF32Type())));
      }
    return result;
  }

  /// Logits times norms of tokens.
  LogicalResult foldNorms(TileFoldOp op, const BlockMemory &norms) {
    SmallVector<Value> tile = getLogits(op.getTile());
    Type type = norms.type.getElement();
    int64_t bytes = type.getIntOrFloatBitWidth() / 8;
    for (int64_t t = 0; t < 2; ++t) {
      // Rows gid and gid + 8 are neighbouring tokens. Two norms of a byte are half of a word.
      Value word;
      if (bytes == 1) {
        BlockMemory whole = norms;
        Value skip = b.mulIndex(arith::DivUIOp::create(b, b.gid, b.index(2)), 4);
        whole.offset = b.add(whole.offset, whole.ring ? b.toI32(skip) : skip);
        word = WordReader(b, whole, {LaneOffset::Gid, 0}, 16 * t, 1).get(0);
        Value isOdd = arith::RemUIOp::create(b, b.gid, b.index(2));
        word = arith::ShRUIOp::create(b, word, b.toI32(b.mulIndex(isOdd, 16)));
      } else {
        word = WordReader(b, norms, {LaneOffset::Gid, 2 * bytes}, 16 * t * bytes, 1).get(0);
      }
      for (int64_t hi = 0; hi < 2; ++hi) {
        Value norm = b.extract(type, word, hi);
        for (size_t i = size_t(4 * t + 2 * hi); i < tile.size(); i += 8)
          for (size_t j = 0; j < 2; ++j)
            tile[i + j] = b.mul(tile[i + j], norm);
      }
    }
    logits[op.getResult()] = {tile, {}};
    return success();
  }

  //===-- Products ----------------------------------------------------------------------===//

  /// Scales (or zeros) of this lane's rows: scale of row u, group g.
  class RowScales {
  public:
    RowScales(FragmentBuilder &b, const BlockMemory &block)
        : b(b), type(block.type.getElement()), groups(block.type.getReduceExtent()),
          bytes(type.getIntOrFloatBitWidth() / 8), words(block.type.getFreeExtent() / 8 * groups * bytes / 4),
          reader(b, block, {LaneOffset::Gid, 4 * words}, 0, words) {}
    Value get(int64_t u, int64_t g) {
      int64_t at = u * groups + g;
      Value &number = numbers[at];
      if (!number)
        number = b.extract(type, reader.get(at * bytes / 4), at % (4 / bytes));
      return number;
    }

  private:
    FragmentBuilder &b;
    Type type;
    int64_t groups, bytes, words;
    WordReader reader;
    DenseMap<int64_t, Value> numbers;
  };

  /// A product's scales and how they are multiplied in.
  struct Scales {
    std::optional<RowScales> scales, zeros;
    bool hybrid;
    float zeroCode;
  };

  /// Adds `part` (the sums of group g, four registers) times its scales to `sums`, which may be null.
  void addScaled(Scales &p, Quad &sums, const Quad &part, int64_t t, int64_t g, Value start) {
    Value smallSums[2];
    for (int64_t j = 0; p.zeros && j < 2; ++j)
      smallSums[j] = b.mul(b.element(start, j, b.getF32Type()), b.f32(-1 / p.zeroCode));
    for (int64_t i = 0; i < 4; ++i) {
      int64_t u = 2 * t + i / 2;
      Value scale = p.scales->get(u, g), zero;
      if (p.zeros)
        zero = p.zeros->get(u, g);
      if (p.hybrid) {
        // The sign bit marks a group with a zero point; the others are symmetric.
        Value marked = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, b.f32ToBits(scale), b.i32(0));
        scale = math::AbsFOp::create(b, scale);
        zero = arith::SelectOp::create(b, marked, zero, b.mul(scale, b.f32(-p.zeroCode)));
      }
      Value &sum = sums[size_t(i)];
      sum = sum ? b.fma(part[size_t(i)], scale, sum) : b.mul(part[size_t(i)], scale);
      if (zero)
        sum = b.fma(zero, smallSums[i % 2], sum);
    }
  }

  template <typename Op> LogicalResult checkProduct(Op op, BlockType block) {
    if (op.getPlacement() == Placement::Element)
      return op.emitError(
          "expected scales placed at accumulator, result or operand for a cuda target, but got element");
    if (block.getPacking().getOrder() != Order::Fragments)
      return op.emitError("expected packing <fragments> with compute f16, but got ") << block.getPacking();
    return success();
  }

  LogicalResult lower(TileScoreOp op) {
    const BlockMemory &keys = blocks.at(op.getKeys());
    if (failed(checkProduct(op, keys.type)))
      return failure();
    if (!op.getQueryScales())
      return op.emitError("expected scales of the query with compute f16");
    Operand &query = operands.at(op.getQuery());
    Type element = keys.type.getElement();
    FragmentReader reader(b, keys);
    int64_t steps = keys.type.getReduceExtent() / 16, groups = 1;
    bool folded = op.getPlacement() == Placement::Operand;
    Scales scales{{}, {}, op.getHybrid(), zeroCodeOf(element)};
    if (op.getScales() && !folded) {
      scales.scales.emplace(b, blocks.at(op.getScales()));
      groups = op.getScales().getType().getReduceExtent();
      if (op.getZeros())
        scales.zeros.emplace(b, blocks.at(op.getZeros()));
    }
    ArrayRef<Value> querySums, scalesOfQuery = sums.at(op.getQueryScales());
    if (op.getQuerySums())
      querySums = sums.at(op.getQuerySums());
    const Offsets *zeroOffsets = op.getOffsets() ? &offsets.at(op.getOffsets()) : nullptr;
    SmallVector<Value> result(size_t(query.tiles * 8));
    for (int64_t t = 0; t < 2; ++t) {
      int64_t foldedGroup = t * query.groups / 2;
      SmallVector<Quad> acc(size_t(query.tiles));
      for (int64_t g = 0; g < groups; ++g) {
        SmallVector<Value> parts;
        auto startOf = [&](int64_t tile) {
          return querySums.empty() ? Value() : querySums[size_t((tile * query.groups + foldedGroup) * groups + g)];
        };
        for (int64_t tile = 0; tile < query.tiles; ++tile) {
          if (zeroOffsets)
            parts.push_back(
                initial(ArrayRef(zeroOffsets->values).slice(size_t(2 * (tile * query.groups + foldedGroup)), 2),
                        float(std::exp2(-kvcc::getUnitExponent(element)))));
          else
            parts.push_back(!querySums.empty() && !scales.zeros ? startOf(tile) : b.zeroQuad());
        }
        for (int64_t s = g * steps / groups; s < (g + 1) * steps / groups; ++s) {
          Value a = reader.getA(t, s);
          for (int64_t tile = 0; tile < query.tiles; ++tile) {
            Value &part = parts[size_t(tile)];
            part = b.mma(query.half, a, query.at(tile, foldedGroup, t, 2 * s),
                         query.at(tile, foldedGroup, t, 2 * s + 1), part);
            if (query.rest.empty())
              continue;
            size_t rest = size_t(tile * query.pairs + 2 * s);
            part = b.mma(query.half, a, query.rest[rest], query.rest[rest + 1], part);
          }
        }
        for (int64_t tile = 0; tile < query.tiles; ++tile) {
          Quad part = b.splitQuad(parts[size_t(tile)]);
          if (scales.scales)
            addScaled(scales, acc[size_t(tile)], part, t, g, startOf(tile));
          else
            acc[size_t(tile)] = part;
        }
      }
      for (int64_t tile = 0; tile < query.tiles; ++tile)
        for (int64_t i = 0; i < 4; ++i)
          result[size_t(8 * tile + 4 * t + i)] = acc[size_t(tile)][size_t(i)];
    }
    logits[op.getResult()] = {result, SmallVector<Value>(scalesOfQuery)};
    return success();
  }

  /// The logits of a block, [tiles][4 rows][2 columns], that are still to be multiplied by scales, [tiles][2], or not.
  struct Logits {
    SmallVector<Value> values, scales;
  };
  SmallVector<Value> getLogits(Value tile) {
    const Logits &of = logits.at(tile);
    SmallVector<Value> result(of.values);
    for (size_t i = 0; !of.scales.empty() && i < result.size(); ++i)
      result[i] = b.mul(result[i], of.scales[2 * (i / 8) + i % 2]);
    return result;
  }

  static float zeroCodeOf(Type element) {
    return isa<IntegerType>(element) ? float(int64_t(1) << (element.getIntOrFloatBitWidth() - 1)) : 0;
  }
  /// A product before its first step: a number for each of two columns, the same in all rows.
  Value initial(ArrayRef<Value> columns, float factor) {
    Value x = b.mul(columns[0], b.f32(factor)), y = b.mul(columns[1], b.f32(factor));
    return b.makeQuad({x, y, x, y});
  }

  LogicalResult lower(TileAccumulateOp op) {
    const BlockMemory &values = blocks.at(op.getValues());
    if (failed(checkProduct(op, values.type)))
      return failure();
    Operand &weights = operands.at(op.getWeights());
    State &state = *states.at(op.getState());
    Type element = values.type.getElement();
    FragmentReader reader(b, values);
    bool scaled = op.getScales() && op.getPlacement() != Placement::Operand;
    int64_t groups = scaled ? op.getScales().getType().getReduceExtent() : 1;
    Scales scales{{}, {}, op.getHybrid(), zeroCodeOf(element)};
    if (scaled) {
      scales.scales.emplace(b, blocks.at(op.getScales()));
      if (op.getZeros())
        scales.zeros.emplace(b, blocks.at(op.getZeros()));
    }
    ArrayRef<Value> weightSums;
    if (op.getWeightSums())
      weightSums = sums.at(op.getWeightSums());
    if (!scaled)
      addOffsets(op, state, weights, weightSums);
    SmallVector<Value> starts; // of every (tile, group)
    for (int64_t tile = 0; scaled && tile < weights.tiles; ++tile)
      for (int64_t g = 0; g < groups; ++g)
        starts.push_back(!weightSums.empty() && !scales.zeros ? weightSums[size_t(tile * groups + g)] : b.zeroQuad());
    for (int64_t t = 0; t < state.rows; ++t) {
      int64_t foldedGroup = t * weights.groups / state.rows;
      Value a[] = {reader.getA(t, 0), reader.getA(t, 1)};
      for (int64_t tile = 0; tile < weights.tiles; ++tile) {
        int64_t at = (tile * state.rows + t) * 4;
        Quad acc;
        for (int64_t i = 0; i < 4; ++i)
          acc[size_t(i)] = load(state.outputs, at + i);
        auto step = [&](Value sum, int64_t s) {
          return b.mma(weights.half, a[s], weights.at(tile, foldedGroup, t % 2, 2 * s),
                       weights.at(tile, foldedGroup, t % 2, 2 * s + 1), sum);
        };
        if (!scaled) {
          acc = b.splitQuad(step(step(b.makeQuad(acc), 0), 1));
        } else {
          for (int64_t g = 0; g < groups; ++g) {
            Value sum = starts[size_t(tile * groups + g)];
            for (int64_t s = 2 * g / groups; s < 2 * (g + 1) / groups; ++s)
              sum = step(sum, s);
            addScaled(scales, acc, b.splitQuad(sum), t, g,
                      scales.zeros ? weightSums[size_t(tile * groups + g)] : Value());
          }
        }
        for (int64_t i = 0; i < 4; ++i)
          store(acc[size_t(i)], state.outputs, at + i);
      }
    }
    return success();
  }

  /// What codes that do not count from zero lack in the outputs is the same for all channels of a group: added up in
  /// registers of its own, and to the outputs when all blocks have been seen.
  void addOffsets(TileAccumulateOp op, State &state, Operand &weights, ArrayRef<Value> weightSums) {
    Type element = op.getValues().getType().getElement();
    auto add = [&](Value array, int64_t at, Value amount, float factor) {
      store(b.fma(amount, b.f32(factor), load(array, at)), array, at);
    };
    if (!op.getOffsets() && weightSums.empty())
      return;
    auto makeArray = [&](Value &array, int64_t count) {
      if (array)
        return;
      array = registers(count);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPoint(initialized.at(op.getState()));
      for (int64_t i = 0; i < count; ++i)
        store(b.f32(0), array, i);
    };
    state.groups = weights.groups;
    if (op.getOffsets() && offsets.at(op.getOffsets()).isOfLane) {
      makeArray(state.laneOffsets, 2 * state.tiles);
      for (auto [i, value] : llvm::enumerate(offsets.at(op.getOffsets()).values))
        add(state.laneOffsets, int64_t(i), value, float(std::exp2(-kvcc::getUnitExponent(element))));
      return;
    }
    makeArray(state.offsets, 2 * state.tiles * weights.groups);
    if (op.getOffsets())
      for (auto [i, value] : llvm::enumerate(offsets.at(op.getOffsets()).values))
        add(state.offsets, int64_t(i), value, float(std::exp2(-kvcc::getUnitExponent(element))));
    else
      for (auto [i, sum] : llvm::enumerate(weightSums))
        for (int64_t j = 0; j < 2; ++j)
          add(state.offsets, 2 * int64_t(i) + j, b.element(sum, j, b.getF32Type()),
              -zeroCodeOf(element) * float(std::exp2(-kvcc::getUnitExponent(element))));
  }

  //===-- Softmax -----------------------------------------------------------------------===//

  LogicalResult lower(TileSoftcapOp op) {
    SmallVector<Value> tile = getLogits(op.getTile()), amounts;
    if (op.getAmounts()) {
      // Known before the loop, where the tile of amounts was made.
      auto shape = shapeOf(op.getAmounts());
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfterValue(op.getAmounts());
      for (int64_t i = 0; i < 2 * tilesOf(shape[0]); ++i)
        amounts.push_back(b.load(tiles.at(op.getAmounts()), {headOf(i / 2, i % 2, shape[0]), b.index(0)}));
    }
    for (size_t i = 0; i < tile.size(); ++i) {
      if (op.getAmounts())
        tile[i] = b.add(tile[i], amounts[2 * (i / 8) + i % 2]);
      tile[i] = b.bound(tile[i], op.getCap().convertToFloat());
    }
    logits[op.getResult()] = {tile, {}};
    return success();
  }

  LogicalResult lower(TileMaskOp op) {
    // Logits that are still to be scaled stay so: what is not seen is lower than any scale makes it.
    Logits tile = logits.at(op.getTile());
    Value infinity = b.f32(-std::numeric_limits<float>::infinity());
    auto toI32 = [&](Value x) { return x ? b.toI32(x) : Value(); };
    Value first = b.toI32(op.getFirst()), valid = toI32(op.getValid()), from = toI32(op.getFrom()),
          end = toI32(op.getEnd()), later = toI32(op.getLater()), lane = b.toI32(b.mulIndex(b.gid, 2));
    auto sub = [&](Value x, Value y) { return arith::SubIOp::create(b, x, y).getResult(); };
    for (size_t column = 0; column < tile.values.size() / 4; ++column) {
      // The same in all blocks, for the device compiler to see: how far the column's query is behind the last one.
      Value limit = valid, start = from;
      if (later) {
        Value row = b.addIndex(b.mulIndex(b.tig, 2), int64_t(8 * (column / 2) + column % 2));
        Value query = b.toI32(arith::DivUIOp::create(b, row, b.index(int64_t(*op.getHeads()))));
        Value behind = arith::MaxSIOp::create(b, sub(later, query), b.i32(0));
        limit = sub(end, behind);
        if (valid)
          limit = arith::MinSIOp::create(b, limit, valid);
        if (from)
          start = sub(from, behind);
      }
      if (limit)
        limit = sub(limit, first);
      if (start)
        start = sub(start, first);
      for (int64_t row = 0; row < 4; ++row) {
        Value token = b.add(lane, b.i32(int32_t(row / 2 * 16 + row % 2))), isSeen;
        if (limit)
          isSeen = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, token, limit);
        if (start) {
          Value isReached = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, token, start);
          isSeen = isSeen ? arith::AndIOp::create(b, isSeen, isReached).getResult() : isReached;
        }
        Value &logit = tile.values[8 * (column / 2) + size_t(2 * row) + column % 2];
        if (isSeen)
          logit = arith::SelectOp::create(b, isSeen, logit, infinity);
      }
    }
    logits[op.getResult()] = tile;
    return success();
  }

  LogicalResult lower(TileInitStateOp op) {
    State state{op.getState().getType(), op.getState().getType().getHeads(), 0, 0, {}, {}, {}, {}, {}, 0};
    state.tiles = tilesOf(state.heads);
    state.rows = state.type.getHeadDim() / 16;
    state.outputs = registers(state.tiles * state.rows * 4);
    state.maxima = registers(state.tiles * 2);
    state.sums = registers(state.tiles * 2);
    for (int64_t i = 0; i < state.tiles * state.rows * 4; ++i)
      store(b.f32(0), state.outputs, i);
    for (int64_t i = 0; i < state.tiles * 2; ++i) {
      store(b.f32(kMaskedLogit), state.maxima, i);
      store(b.f32(0), state.sums, i);
    }
    initialized[op.getState()] = op;
    states[op.getState()] = std::make_unique<State>(state);
    return success();
  }

  /// Whether what products with the weights begin with is the sum of the weights too.
  static bool isSummedByPrepare(TileSoftmaxStepOp op) {
    if (!op.getWeights().hasOneUse())
      return false;
    auto prepare = dyn_cast<TilePrepareOp>(*op.getWeights().user_begin());
    return prepare && int64_t(prepare.getGroup()) == kBlockTokens && isa<IntegerType>(*prepare.getElements()) &&
           !prepare.getSums().use_empty();
  }

  LogicalResult lower(TileSoftmaxStepOp op) {
    State &state = *states.at(op.getState());
    Logits tile = logits.at(op.getLogits());
    auto exponent = float(int64_t(op.getExponent()));
    // Relative to the maximum so far. No lane knows the block's own maximum, unless some logit is far above.
    SmallVector<Value> powers;
    Value largest;
    auto relative = [&](size_t i) {
      size_t column = 2 * (i / 8) + i % 2;
      Value max = load(state.maxima, int64_t(column));
      if (tile.scales.empty())
        return arith::SubFOp::create(b, tile.values[i], max).getResult();
      return b.call1("kv_fma", b.getF32Type(),
                     {tile.values[i], tile.scales[column], arith::NegFOp::create(b, max).getResult()});
    };
    for (size_t i = 0; i < tile.values.size(); ++i) {
      powers.push_back(relative(i));
      largest = largest ? b.max(largest, powers.back()) : powers.back();
    }
    Value isAbove = emitc::CmpOp::create(b, b.getI1Type(), emitc::CmpPredicate::gt, largest,
                                         b.f32(exponent + getSlack(int64_t(op.getExponent()))));
    Value isRaised = b.call1("kv_any", b.getI1Type(), isAbove);
    SmallVector<Type> types(powers.size(), b.getF32Type());
    auto branch = scf::IfOp::create(b, types, isRaised, /*withElseRegion=*/true);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.elseBlock());
      scf::YieldOp::create(b, powers);
      b.setInsertionPointToStart(branch.thenBlock());
      for (int64_t t = 0; t < state.tiles; ++t)
        for (int64_t j = 0; j < 2; ++j)
          raiseMaximum(state, t, j, getLogits(op.getLogits()), exponent);
      SmallVector<Value> raised;
      for (size_t i = 0; i < tile.values.size(); ++i)
        raised.push_back(relative(i));
      scf::YieldOp::create(b, raised);
    }
    Operand weights;
    weights.half = cast<VectorType>(op.getWeights().getType()).getElementType();
    weights.tiles = state.tiles;
    weights.pairs = 4;
    for (int64_t t = 0; t < state.tiles; ++t) {
      // Rows gid and columns 2tig, 2tig + 1 are tokens and heads; as an operand, heads and tokens.
      for (int64_t n = 0; n < 4; ++n) {
        Value low = b.exp2(branch.getResult(unsigned(8 * t + 2 * n)));
        Value high = b.exp2(branch.getResult(unsigned(8 * t + 2 * n + 1)));
        weights.plain.push_back(b.call1("kv_movmatrix_trans", b.getI32Type(), b.pack(weights.half, low, high)));
      }
      if (isSummedByPrepare(op))
        continue;
      // The sum of what is multiplied, not of what it was before it was rounded.
      uint32_t one = weights.half.isBF16() ? kOneBf16 : kOneF16;
      Value ones = constantA(op, one, one), sum = b.zeroQuad();
      for (int64_t s = 0; s < 2; ++s)
        sum = b.mma(weights.half, ones, weights.plain[size_t(4 * t + 2 * s)], weights.plain[size_t(4 * t + 2 * s + 1)],
                    sum);
      for (int64_t j = 0; j < 2; ++j) {
        Value total = b.element(sum, j, b.getF32Type());
        store(b.add(load(state.sums, 2 * t + j), total), state.sums, 2 * t + j);
      }
    }
    weights.words.assign(size_t(weights.tiles * 2 * 4), Value());
    for (int64_t t = 0; t < state.tiles; ++t)
      for (int64_t n = 0; n < 8; ++n)
        weights.at(t, 0, n / 4, n % 4) = weights.plain[size_t(4 * t + n % 4)];
    operands[op.getWeights()] = std::move(weights);
    return success();
  }

  /// Takes the maximum of a column to at least the logits of a block, and rescales what was summed under the old one.
  void raiseMaximum(State &state, int64_t tile, int64_t j, ArrayRef<Value> logits, float exponent) {
    Value largest;
    for (int64_t row = 0; row < 4; ++row) {
      Value logit = logits[size_t(8 * tile + 2 * row + j)];
      largest = largest ? b.max(largest, logit) : logit;
    }
    for (int32_t mask : {4, 8, 16})
      largest = b.max(largest, b.shuffleXor(largest, mask));
    Value factor = raiseMaximum(state, tile, j, largest, exponent);
    // Arrays of offsets are made later, by what adds to them: they are rescaled by scaleOffsets.
    raises.push_back({&state, tile, j, factor});
  }
  /// Returns what the outputs were multiplied by.
  Value raiseMaximum(State &state, int64_t tile, int64_t j, Value candidate, float exponent) {
    Value old = load(state.maxima, 2 * tile + j), max = b.max(old, b.add(candidate, b.f32(-exponent)));
    Value factor = b.exp2(arith::SubFOp::create(b, old, max));
    store(max, state.maxima, 2 * tile + j);
    auto scale = [&](Value array, int64_t at) { store(b.mul(load(array, at), factor), array, at); };
    scale(state.sums, 2 * tile + j);
    for (int64_t t = 0; t < state.rows; ++t)
      for (int64_t hi = 0; hi < 2; ++hi)
        scale(state.outputs, (tile * state.rows + t) * 4 + 2 * hi + j);
    return factor;
  }

  LogicalResult lower(TileScaleStateOp op) {
    State &state = *states.at(op.getState());
    scaleOffsets(state);
    Value factor = b.f32(op.getFactor().convertToFloat());
    for (int64_t tile = 0; tile < state.tiles; ++tile)
      for (int64_t t = 0; t < state.rows; ++t) {
        int64_t group = state.groups ? t * state.groups / state.rows : 0;
        for (int64_t i = 0; i < 4; ++i) {
          int64_t at = (tile * state.rows + t) * 4 + i, j = i % 2;
          Value out = load(state.outputs, at);
          if (state.offsets)
            out = b.add(out, load(state.offsets, 2 * (tile * state.groups + group) + j));
          if (state.laneOffsets)
            out = b.add(out, b.shuffle(load(state.laneOffsets, 2 * tile + j), b.toI32(b.addIndex(b.tig, 4 * group))));
          store(b.mul(out, factor), state.outputs, at);
        }
      }
    state.offsets = state.laneOffsets = {};
    return success();
  }

  /// Where maxima were raised before the arrays of offsets were there.
  void scaleOffsets(State &state) {
    OpBuilder::InsertionGuard guard(b);
    for (auto &[of, tile, j, factor] : raises) {
      if (of != &state)
        continue;
      b.setInsertionPointAfterValue(factor);
      auto scale = [&](Value array, int64_t at) { store(b.mul(load(array, at), factor), array, at); };
      for (int64_t g = 0; state.offsets && g < state.groups; ++g)
        scale(state.offsets, 2 * (tile * state.groups + g) + j);
      if (state.laneOffsets)
        scale(state.laneOffsets, 2 * tile + j);
    }
    raises.clear();
  }

  LogicalResult lower(TileShiftStateOp op) {
    State &state = *states.at(op.getState());
    for (int64_t tile = 0; tile < state.tiles; ++tile)
      for (int64_t j = 0; j < 2; ++j) {
        Value amount = b.load(tiles.at(op.getAmounts()), {headOf(tile, j, state.heads), b.index(0)});
        store(b.add(load(state.maxima, 2 * tile + j), amount), state.maxima, 2 * tile + j);
      }
    return success();
  }

  //===-- Results -----------------------------------------------------------------------===//

  /// Calls `body(column, head)` for this lane's columns of heads that are there.
  void forEachColumn(State &state, function_ref<void(int64_t, Value)> body) {
    for (int64_t column = 0; column < 2 * state.tiles; ++column) {
      int64_t tile = column / 2;
      Value head = b.addIndex(b.mulIndex(b.tig, 2), 8 * tile + column % 2);
      if (state.heads >= 8 * (tile + 1)) {
        body(column, head);
        continue;
      }
      Value isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, head, b.index(state.heads));
      auto branch = scf::IfOp::create(b, isThere, /*withElseRegion=*/false);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      body(column, head);
    }
  }
  /// Calls `body(index of the output's register, head, channel)` for this lane's outputs of heads that are there.
  void forEachOutput(State &state, function_ref<void(int64_t, Value, Value)> body) {
    forEachColumn(state, [&](int64_t column, Value head) {
      for (int64_t t = 0; t < state.rows; ++t)
        for (int64_t hi = 0; hi < 2; ++hi)
          body((column / 2 * state.rows + t) * 4 + 2 * hi + column % 2, head,
               b.addIndex(b.mulIndex(b.gid, 2), 16 * t + hi));
    });
  }

  LogicalResult lower(TileRestoreOp op) {
    State &state = *states.at(op.getState());
    int64_t channels = state.type.getHeadDim();
    Value means, factors;
    if (op.getMeans())
      means = viewVector(op.getMeans(), op.getMeansOffset(), channels);
    if (op.getFactors())
      factors = viewVector(op.getFactors(), op.getFactorsOffset(), channels);
    if (op.getSize())
      rotate(state, int64_t(*op.getSize()));
    if (!means && !factors)
      return success();
    forEachOutput(state, [&](int64_t i, Value, Value channel) {
      Value out = load(state.outputs, i);
      if (means)
        out = b.fma(load(state.sums, i / (4 * state.rows) * 2 + i % 2), b.load(means, channel), out);
      if (factors)
        out = b.mul(out, b.load(factors, channel));
      store(out, state.outputs, i);
    });
    return success();
  }

  /// Multiplies blocks of `size` channels of the outputs by the normalized Hadamard matrix. Channel 16t + 2gid + hi of
  /// a column is in register t, hi of lane gid: bits of channels are bits of registers or of lanes.
  void rotate(State &state, int64_t size) {
    for (int64_t tile = 0; tile < state.tiles; ++tile)
      for (int64_t j = 0; j < 2; ++j) {
        auto place = [&](int64_t i) { return (tile * state.rows + i / 2) * 4 + 2 * (i % 2) + j; };
        SmallVector<Value> outputs;
        for (int64_t i = 0; i < 2 * state.rows; ++i)
          outputs.push_back(load(state.outputs, place(i)));
        for (int64_t half = 1; half < size; half *= 2) {
          if (half > 1 && half < 16)
            addAcrossLanes(outputs, b.toI32(b.gid), half / 2, int32_t(2 * half));
          else
            addAcrossRegisters(outputs, half == 1 ? 1 : size_t(half / 8));
        }
        for (auto [i, output] : enumerate(outputs))
          store(b.mul(output, b.f32(getNorm(size))), state.outputs, place(int64_t(i)));
      }
  }

  LogicalResult lower(TileJoinSinksOp op) {
    State &state = *states.at(op.getState());
    for (int64_t tile = 0; tile < state.tiles; ++tile)
      for (int64_t j = 0; j < 2; ++j) {
        Value head = arith::RemUIOp::create(b, headOf(tile, j, state.heads), b.index(int64_t(op.getHeads())));
        Value logit = b.load(op.getSinks(), b.add(op.getOffset(), head));
        Value part = b.mul(logit, b.f32(float(std::numbers::log2e)));
        raiseMaximum(state, tile, j, part, float(int64_t(op.getExponent())));
        int64_t at = 2 * tile + j;
        Value weight = b.exp2(arith::SubFOp::create(b, part, load(state.maxima, at)));
        store(b.add(load(state.sums, at), weight), state.sums, at);
      }
    return success();
  }

  LogicalResult lower(TileArriveOp op) {
    op.replaceAllUsesWith(b.arrive(op.getCounters(), op.getAt(), op.getCount()));
    return success();
  }

  LogicalResult lower(TileMergeOp op) {
    b.mergeParts(op, b.thread, getThreads(), [&](Value memory, Value at) {
      Value four = b.call1("kv_ldg128", b.opaque("kv_u32x4"), b.advance(memory, at));
      SmallVector<Value> numbers;
      for (int64_t i = 0; i < 4; ++i)
        numbers.push_back(b.bitsToF32(b.element(four, i, b.getI32Type())));
      return numbers;
    });
    return success();
  }

  LogicalResult lower(TileStoreResultOp op) {
    State &state = *states.at(op.getState());
    int64_t channels = state.type.getHeadDim(), pitch = kvcc::getMergePitch(channels),
            floats = warpBytes / int64_t(sizeof(float));
    // In the memory that the blocks of each warp have had.
    auto type = MemRefType::get({warps * floats}, b.getF32Type());
    Value rows = memref::ViewOp::create(b, type, dynamic, b.index(0), ValueRange());
    Value own = b.mulIndex(b.warp, floats);
    auto rowAt = [&](Value head) { return b.add(own, b.mulIndex(head, pitch)); };
    b.syncWarp();
    forEachOutput(state, [&](int64_t i, Value head, Value channel) {
      b.store(load(state.outputs, i), rows, b.add(rowAt(head), channel));
    });
    // Lanes with the same columns know the same, but for the sign of a zero, which a sum with zero takes away.
    forEachColumn(state, [&](int64_t column, Value head) {
      Value max = b.add(load(state.maxima, column), b.f32(0));
      b.store(max, rows, b.addIndex(rowAt(head), channels));
      b.store(load(state.sums, column), rows, b.addIndex(rowAt(head), channels + 1));
    });
    b.barrier();
    ResultWriter writer(b, op);
    // A warp for each row, a lane for every 32nd channel.
    Value lane = b.add(b.mulIndex(b.gid, 4), b.tig);
    b.loop(b.warp, getRows(state.heads), warps, false, [&](Value head) {
      Value row = b.mulIndex(head, pitch);
      auto at = [&](int64_t warp, int64_t column) { return b.addIndex(row, warp * floats + column); };
      SmallVector<Value> weights;
      Value max = b.f32(kMaskedLogit), sum = b.f32(0);
      for (int64_t warp = 0; warp < warps; ++warp) {
        weights.push_back(b.load(rows, at(warp, channels)));
        max = b.max(max, weights.back());
      }
      for (int64_t warp = 0; warp < warps; ++warp) {
        Value &weight = weights[size_t(warp)];
        weight = b.exp2(arith::SubFOp::create(b, weight, max));
        sum = b.fma(b.load(rows, at(warp, channels + 1)), weight, sum);
      }
      auto [inverse, lse] = b.finish(sum, b.getLse(max, sum, /*exponent=*/0));
      for (int64_t c = 0; c < channels; c += kWarp) {
        Value out = b.f32(0);
        for (int64_t warp = 0; warp < warps; ++warp)
          out = b.fma(b.load(rows, b.add(at(warp, c), lane)), weights[size_t(warp)], out);
        writer.storeOut(b.mul(out, inverse), head, b.addIndex(lane, c));
      }
      Value isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, lane, b.index(0));
      auto branch = scf::IfOp::create(b, isFirst, /*withElseRegion=*/false);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      writer.storeLse(lse, head);
    });
    return success();
  }

  func::FuncOp func;
  int64_t warps;
  FragmentBuilder b;
  Value dynamic;                                  ///< dynamic shared memory
  SmallVector<std::array<uint32_t, 2>> constants; ///< see constantA
  Value constantMemory;                           ///< the shared memory that has them
  int64_t warpBytes = 0;                          ///< of it that each warp has
  Value rowsThere;                                ///< where several queries share a work item
  int64_t fewestRows = 0;                         ///< of these: those of one query
  SmallVector<Element> own;                       ///< see getOwn
  int64_t queryTiles = 0;                         ///< that have memory: as many as getQueryTiles counts
  /// What this thread's elements of a tile are made of: numbers, a scale, factors of each.
  struct Making {
    SmallVector<Value> loaded;
    float scale = 1;
    SmallVector<SmallVector<Value>, 1> factors;
  };
  llvm::MapVector<Value, Making> pending; ///< tiles that are not in memory yet
  DenseMap<Value, Value> tiles, rings, sources;
  DenseMap<Value, BlockMemory> blocks;
  DenseMap<Value, Operand> operands;
  DenseMap<Value, SmallVector<Value>> sums;
  DenseMap<Operation *, SmallVector<Value>> vectors; ///< of dot products
  DenseMap<Value, Logits> logits;
  DenseMap<Value, Offsets> offsets;
  DenseMap<Value, std::unique_ptr<State>> states;
  DenseMap<Value, Operation *> initialized;
  struct Raise {
    State *state;
    int64_t tile, j;
    Value factor;
  };
  SmallVector<Raise> raises;
};

} // namespace

LogicalResult kvcc::cuda::lowerFragments(func::FuncOp func, int64_t warps, StringRef arch) {
  // Three blocks of four warps leave a thread 168 registers: enough for the outputs and the query of eight heads of 128
  // channels beside a block's words, if those come from shared memory. (For sm_120 ptxas needs a few more.) Two leave
  // 255.
  int64_t width = 0;
  bool hasRing = false;
  func.walk([&](Operation *op) {
    if (auto init = dyn_cast<TileInitStateOp>(op))
      width = (init.getState().getType().getHeads() + 7) / 8 * init.getState().getType().getHeadDim();
    hasRing |= isa<TileRingOp>(op);
  });
  int64_t warpsOfMultiprocessor = width <= 128 && hasRing && !arch.starts_with("sm_12") ? 12 : 8;
  func->setAttr(kvcc::kBlocksAttrName, IntegerAttr::get(IntegerType::get(func.getContext(), 64),
                                                        std::max<int64_t>(warpsOfMultiprocessor / warps, 1)));
  return FragmentLowering(func, warps).run();
}
