// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// engine MODEL [SCHEME [THREADS [REQUESTS [PAGES]]]]: a small inference engine over one layer, with what engines do to
// a KV cache: continuous batching, pages from one pool, prefixes that requests share, prefill in chunks, speculation,
// backtracking, preemption. Keys, values and queries are made up, the same ones whenever a token is asked for; so every
// request is computed once more at the end, alone and token by token, and has to come out the same:
//   * bit for bit with one thread;
//   * within 1e-5 with several, in f32: among them a step is split, how depends on the batch, and the order of sums
//     depends on that. (Integer arithmetic rounds weights in each part; such steps agree within kernel_error_bound.)
#include <kvcc.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <vector>

namespace {

constexpr int32_t layerIndex = 0;
constexpr int64_t chunk = 96, maxDraft = 4, numPrefixes = 2, prefixTokens = 500;
constexpr size_t maxBatch = 6;

uint64_t mix(uint64_t a, uint64_t b) { // splitmix64
  uint64_t x = a + (b + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

/// Numbers from -3 to 3, the same for the same seed.
void makeUp(uint64_t seed, int64_t count, float *out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = float(mix(seed, uint64_t(i)) >> 40) / float(1 << 23) * 3 - 3;
}

/// A prefix, more tokens of a prompt, and then tokens that are generated.
struct Request {
  uint64_t id;
  int64_t arrival; ///< the step
  int64_t prompt,
      generate; ///< tokens of prefix and prompt; outputs, the first one being that of the prompt's last token

  uint64_t getPrefix() const { return id % uint64_t(numPrefixes); }
  /// What the numbers of a token are made from.
  uint64_t getToken(int64_t position) const {
    return mix(position < prefixTokens ? getPrefix() : 100 + id, uint64_t(position));
  }
  /// Three of four drafts are right.
  uint64_t getDraft(int64_t position) const {
    uint64_t token = getToken(position);
    return mix(token, 4) % 4 ? token : mix(token, 5);
  }
};

/// Pages or slots that are handed out.
class Pool {
public:
  explicit Pool(int64_t count) : references(size_t(count)) {
    for (int32_t i = int32_t(count); i-- > 0;)
      unused.push_back(i);
  }
  size_t getUnused() const { return unused.size(); }
  size_t size() const { return references.size(); }
  int32_t take() {
    int32_t taken = unused.back();
    unused.pop_back();
    references[size_t(taken)] = 1;
    return taken;
  }
  int32_t share(int32_t entry) { return ++references[size_t(entry)], entry; }
  void release(int32_t entry) {
    if (--references[size_t(entry)] == 0)
      unused.push_back(entry);
  }

private:
  std::vector<int32_t> unused, references;
};

/// Memory at a multiple of 64.
class Bytes {
public:
  explicit Bytes(size_t size) : bytes(size + 64) {}
  void *data() { return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64); }

private:
  std::vector<char> bytes;
};

using Output = std::vector<float>;

struct Sequence {
  explicit Sequence(const Request &request) : request(&request) {}
  const Request *request;
  int32_t slot = -1;
  std::vector<int32_t> table;
  int64_t tokens = 0, before = 0; ///< now, and before the step
  bool hasBacktracked = false;
  std::vector<char> snapshot; ///< while it is preempted
  std::vector<Output> outputs;

  /// Of what has been appended, tokens after the first generated one of the step are drafts.
  uint64_t getToken(int64_t position) const {
    return position > before && position >= request->prompt ? request->getDraft(position) : request->getToken(position);
  }
};
using Batch = std::vector<Sequence *>;

/// The memory of a layer, and the calls over it.
class Cache {
public:
  Cache(const kvcc::Program &program, int64_t numPages, int64_t numSlots)
      : layer(program.layer(layerIndex)), pages(numPages), slots(numSlots), program(program),
        pageBytes(size_t(numPages * layer.page_bytes)), slotBytes(size_t(numSlots * layer.slot_bytes)),
        memory{pageBytes.data(), numPages, slotBytes.data(), numSlots} {}

  const kvcc_layer_info layer;
  Pool pages, slots;

  size_t pagesFor(int64_t tokens) const { return size_t(program.pagesFor(layerIndex, tokens)); }

  /// Gives the sequence the pages that `tokens` tokens need, and takes those beyond. False if there are not enough.
  bool resize(Sequence &sequence, int64_t tokens) {
    size_t wanted = pagesFor(tokens);
    if (wanted > sequence.table.size() + pages.getUnused())
      return false;
    for (; sequence.table.size() > wanted; sequence.table.pop_back())
      pages.release(sequence.table.back());
    while (sequence.table.size() < wanted)
      sequence.table.push_back(pages.take());
    return true;
  }

  void release(Sequence &sequence) {
    resize(sequence, 0);
    slots.release(sequence.slot);
  }

  /// Appends counts[i] tokens to batch[i], which has the pages for them.
  void append(const Batch &batch, const std::vector<int32_t> &counts) {
    const int64_t maxNew = *std::max_element(counts.begin(), counts.end()), size = layer.kv_heads * layer.head_dim;
    std::vector<float> keys(batch.size() * size_t(maxNew * size)), values(keys.size());
    for (size_t i = 0; i < batch.size(); ++i) {
      batch[i]->before = batch[i]->tokens;
      batch[i]->tokens += counts[i];
      for (int64_t t = 0; t < counts[i]; ++t) {
        const size_t at = (i * size_t(maxNew) + size_t(t)) * size_t(size);
        makeUp(mix(batch[i]->getToken(batch[i]->before + t), 1), size, &keys[at]);
        makeUp(mix(batch[i]->getToken(batch[i]->before + t), 2), size, &values[at]);
      }
    }
    auto args = describe<kvcc_append_args>(batch);
    args.new_lens = counts.data(), args.max_new = maxNew, args.keys = keys.data(), args.values = values.data();
    args.sequence_stride = maxNew * size, args.token_stride = size, args.head_stride = layer.head_dim;
    program.append(layerIndex, args);
  }

  /// Outputs of the last `queries` tokens of each sequence, in the order of the batch.
  std::vector<Output> attend(const Batch &batch, int64_t queries) {
    const int64_t rows = int64_t(batch.size()) * queries, size = layer.q_heads * layer.head_dim;
    std::vector<float> query(size_t(rows * size)), out(query.size()), lse(size_t(rows * layer.q_heads));
    auto args = describe<kvcc_attend_args>(batch);
    for (int64_t row = 0; row < rows; ++row) {
      const Sequence &sequence = *batch[size_t(row / queries)];
      makeUp(mix(sequence.getToken(sequence.tokens - queries + row % queries), 3), size, &query[size_t(row * size)]);
      args.max_tokens = std::max(args.max_tokens, sequence.tokens);
    }
    // An engine that serves has one workspace for its largest step.
    args.workspace_bytes = program.workspaceBytes(layerIndex, rows, args.max_tokens);
    Bytes workspace(args.workspace_bytes);
    args.query = query.data(), args.queries = queries, args.out = out.data(), args.lse = lse.data();
    args.workspace = workspace.data();
    program.attend(layerIndex, args);
    std::vector<Output> outputs;
    for (auto at = out.begin(); at != out.end(); at += size)
      outputs.emplace_back(at, at + size);
    return outputs;
  }

  void takeBack(Sequence &sequence, int64_t count) {
    sequence.tokens = program.rollback(layerIndex, sequence.tokens, count);
    resize(sequence, sequence.tokens);
  }

  /// `to` becomes `from`, with which it shares what it can. The pages for it are there.
  void fork(const Sequence &from, Sequence &to) {
    const auto shared = size_t(program.sharedPages(layerIndex, from.tokens));
    for (size_t i = 0; i < from.table.size(); ++i)
      to.table.push_back(i < shared ? pages.share(from.table[i]) : pages.take());
    to.slot = slots.take();
    to.tokens = from.tokens;
    auto args = kvcc::sized<kvcc_fork_args>();
    args.memory = memory, args.table = from.table.data(), args.slot = from.slot;
    args.fork_table = to.table.data(), args.fork_slot = to.slot;
    args.table_length = int64_t(from.table.size()), args.tokens = from.tokens;
    program.fork(layerIndex, args);
  }

  /// Moves a sequence out of the cache, and back in, where the pages for it are.
  void swapOut(Sequence &sequence) {
    sequence.snapshot.resize(program.snapshotBytes(layerIndex, sequence.tokens));
    program.snapshot(layerIndex, describeSnapshot(sequence));
    release(sequence);
  }
  void swapIn(Sequence &sequence) {
    sequence.slot = slots.take();
    resize(sequence, kvcc::snapshotTokens(sequence.snapshot.data(), sequence.snapshot.size()));
    sequence.tokens = program.restore(layerIndex, describeSnapshot(sequence));
    sequence.snapshot.clear();
  }

  int64_t quantizedTokens(int64_t tokens) const { return program.quantizedTokens(layerIndex, tokens); }

private:
  /// What append and attend say of a batch.
  template <typename Args> Args describe(const Batch &batch) {
    size_t stride = 1;
    for (const Sequence *sequence : batch)
      stride = std::max(stride, sequence->table.size());
    tables.assign(batch.size() * stride, 0);
    slotIds.clear(), lens.clear();
    for (size_t i = 0; i < batch.size(); ++i) {
      std::copy(batch[i]->table.begin(), batch[i]->table.end(), tables.begin() + std::ptrdiff_t(i * stride));
      slotIds.push_back(batch[i]->slot);
      lens.push_back(int32_t(batch[i]->tokens));
    }
    auto args = kvcc::sized<Args>();
    args.memory = memory, args.table = tables.data(), args.table_stride = int64_t(stride);
    args.slots = slotIds.data(), args.seq_lens = lens.data(), args.batch = int64_t(batch.size());
    return args;
  }
  kvcc_snapshot_args describeSnapshot(Sequence &sequence) const {
    auto args = kvcc::sized<kvcc_snapshot_args>();
    args.memory = memory, args.table = sequence.table.data(), args.table_length = int64_t(sequence.table.size());
    args.slot = sequence.slot, args.tokens = sequence.tokens;
    args.bytes = sequence.snapshot.data(), args.bytes_length = sequence.snapshot.size();
    return args;
  }

  const kvcc::Program &program;
  Bytes pageBytes, slotBytes;
  kvcc_memory memory;
  std::vector<int32_t> tables, slotIds, lens;
};

class Engine {
public:
  Engine(const kvcc::Program &program, int64_t numPages, std::deque<Sequence> &sequences)
      : cache(program, numPages, int64_t(maxBatch) + numPrefixes) {
    for (Sequence &sequence : sequences)
      waiting.push_back(&sequence);
  }

  void run() {
    for (; !waiting.empty() || !running.empty() || !preempted.empty(); ++steps)
      step();
    for (auto &[prefix, sequence] : prefixes)
      cache.release(sequence);
    std::printf("%d steps, %d tokens appended, %d forks, %d drafts of which %d were rolled back, %d backtracks, "
                "%d preemptions, %d of %d pages at most\n",
                steps, appended, forks, drafts, rejected, backtracks, preemptions, mostPages, int(cache.pages.size()));
  }
  bool isEmpty() const {
    return cache.pages.getUnused() == cache.pages.size() && cache.slots.getUnused() == cache.slots.size();
  }

private:
  bool isRoom(int64_t tokens) { return running.size() < maxBatch && cache.pagesFor(tokens) <= cache.pages.getUnused(); }

  /// Lets requests in: first those that had to leave, then those that have arrived.
  void admit() {
    while (!preempted.empty() && isRoom(preempted.front()->tokens + chunk)) {
      cache.swapIn(*preempted.front());
      running.push_back(preempted.front());
      preempted.pop_front();
    }
    while (preempted.empty() && !waiting.empty() && waiting.front()->request->arrival <= steps) {
      Sequence &next = *waiting.front();
      auto found = prefixes.find(next.request->getPrefix());
      if (found == prefixes.end()) {
        if (!isRoom(prefixTokens))
          break;
        // At once: what the transforms of formats measure, they measure on the first tokens that come.
        found = prefixes.emplace(next.request->getPrefix(), *next.request).first;
        found->second.slot = cache.slots.take();
        cache.resize(found->second, prefixTokens);
        cache.append({&found->second}, {int32_t(prefixTokens)});
      }
      if (!isRoom(prefixTokens + chunk))
        break;
      cache.fork(found->second, next);
      ++forks;
      running.push_back(&next);
      waiting.pop_front();
    }
  }

  /// New tokens of a sequence: a chunk of its prompt, or a generated one and drafts.
  int64_t plan(const Sequence &sequence) const {
    const Request &request = *sequence.request;
    if (sequence.tokens < request.prompt)
      return std::min(chunk, request.prompt - sequence.tokens);
    int64_t count = std::min(1 + maxDraft, request.generate - int64_t(sequence.outputs.size()));
    // All queries of a step see the same cache. Where a block leaves the window with one of the tokens, those before it
    // would find it quantized too soon: so drafts end before that, and outputs do not depend on speculation.
    auto quantized = [&](int64_t tokens) { return cache.quantizedTokens(tokens); };
    while (cache.layer.flush > 1 && count > 1 && quantized(sequence.tokens + count) != quantized(sequence.tokens + 1))
      --count;
    return count;
  }

  void step() {
    admit();
    Batch batch;
    std::vector<int32_t> counts;
    // Older ones first; where pages run out, the one that came last leaves.
    for (size_t i = 0; i < running.size(); ++i) {
      int64_t count = plan(*running[i]);
      while (i < running.size() && !cache.resize(*running[i], running[i]->tokens + count)) {
        cache.swapOut(*running.back());
        preempted.push_front(running.back());
        running.pop_back();
        ++preemptions;
      }
      if (i < running.size()) {
        batch.push_back(running[i]);
        counts.push_back(int32_t(count));
        appended += int(count);
      }
    }
    if (batch.empty()) {
      if (!preempted.empty() || (!waiting.empty() && waiting.front()->request->arrival <= steps))
        throw std::runtime_error("expected more pages, but got " + std::to_string(cache.pages.size()));
      return;
    }
    mostPages = std::max(mostPages, int(cache.pages.size() - cache.pages.getUnused()));
    cache.append(batch, counts);

    // One call for each number of queries: a prompt's last token has one, a generated token and its drafts one each.
    std::map<int64_t, Batch> groups;
    for (Sequence *sequence : batch)
      if (sequence->tokens >= sequence->request->prompt)
        groups[sequence->before < sequence->request->prompt ? 1 : sequence->tokens - sequence->before].push_back(
            sequence);
    for (auto &[queries, group] : groups) {
      std::vector<Output> outputs = cache.attend(group, queries);
      for (size_t i = 0; i < group.size(); ++i)
        accept(*group[i], &outputs[i * size_t(queries)], queries);
    }
  }

  /// Keeps outputs up to the first draft that is wrong, and takes that and all after it back.
  void accept(Sequence &sequence, Output *outputs, int64_t count) {
    const Request &request = *sequence.request;
    int64_t right = 1;
    for (int64_t first = sequence.tokens - count; right < count; ++right)
      if (request.getDraft(first + right) != request.getToken(first + right))
        break;
    std::move(outputs, outputs + right, std::back_inserter(sequence.outputs));
    drafts += int(count - 1), rejected += int(count - right);
    if (right < count)
      cache.takeBack(sequence, count - right);
    if (int64_t(sequence.outputs.size()) == request.generate) {
      cache.release(sequence);
      running.erase(std::find(running.begin(), running.end(), &sequence));
      return;
    }
    // Some take a good deal of what they have generated back, as a grammar or a stop word may demand, once.
    int64_t most = cache.layer.max_rollback - maxDraft;
    if (request.id % 3 == 0 && !sequence.hasBacktracked && int64_t(sequence.outputs.size()) > most) {
      cache.takeBack(sequence, most);
      sequence.outputs.resize(sequence.outputs.size() - size_t(most));
      sequence.hasBacktracked = true;
      ++backtracks;
    }
  }

  Cache cache;
  std::map<uint64_t, Sequence> prefixes;
  std::deque<Sequence *> waiting, preempted;
  Batch running;
  int steps = 0, appended = 0, forks = 0, drafts = 0, rejected = 0, backtracks = 0, preemptions = 0, mostPages = 0;
};

/// The outputs of a request by itself.
std::vector<Output> computeAlone(const kvcc::Program &program, const Request &request) {
  Sequence sequence(request);
  Cache cache(program, program.pagesFor(layerIndex, request.prompt + request.generate), 1);
  sequence.slot = cache.slots.take();
  auto appendUntil = [&](int64_t tokens) {
    cache.resize(sequence, tokens);
    cache.append({&sequence}, {int32_t(tokens - sequence.tokens)});
  };
  appendUntil(prefixTokens);
  appendUntil(request.prompt);
  std::vector<Output> outputs = cache.attend({&sequence}, 1);
  while (int64_t(outputs.size()) < request.generate) {
    appendUntil(sequence.tokens + 1);
    outputs.push_back(std::move(cache.attend({&sequence}, 1).front()));
  }
  return outputs;
}

double relativeError(const Output &numbers, const Output &expected) {
  double difference = 0, whole = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    difference += std::pow(double(numbers[i]) - double(expected[i]), 2);
    whole += std::pow(double(expected[i]), 2);
  }
  return std::sqrt(difference / whole);
}

int run(int argc, char **argv) {
  if (argc < 2)
    throw std::runtime_error("expected MODEL [SCHEME [THREADS [REQUESTS [PAGES]]]]");
  auto number = [&](int index, int64_t otherwise) { return argc > index ? std::atoll(argv[index]) : otherwise; };
  auto machine = kvcc::sized<kvcc_context_options>();
  machine.threads = uint32_t(number(3, 1));
  auto options = kvcc::sized<kvcc_compile_options>();
  options.model = argv[1], options.scheme = argc > 2 ? argv[2] : "innerq-small";
  options.target = "cpu", options.dtype = "f32", options.page_tokens = 32;
  options.compute = machine.threads == 1 ? "auto" : "f32";
  const kvcc::Program program = kvcc::Context(machine).compile(options);

  std::vector<Request> requests;
  for (uint64_t id = 0; id < uint64_t(number(4, 24)); ++id)
    requests.push_back({id, int64_t(id * 3 + mix(id, 8) % 8), prefixTokens + 1 + int64_t(mix(id, 9) % 300),
                        20 + int64_t(mix(id, 10) % 150)});
  std::sort(requests.begin(), requests.end(), [](auto &a, auto &b) { return a.arrival < b.arrival; });
  std::deque<Sequence> sequences(requests.begin(), requests.end());
  Engine engine(program, number(5, 70), sequences);
  engine.run();

  int equal = 0, close = 0, wrong = 0;
  double worst = 0;
  for (const Sequence &sequence : sequences) {
    const std::vector<Output> alone = computeAlone(program, *sequence.request);
    for (size_t i = 0; i < alone.size(); ++i) {
      double error = relativeError(sequence.outputs.at(i), alone[i]);
      bool isEqual = sequence.outputs[i] == alone[i], isClose = machine.threads != 1 && error <= 1e-5;
      ++(isEqual ? equal : isClose ? close : wrong);
      worst = std::max(worst, error);
    }
  }
  std::printf("%d outputs equal bit for bit, %d close, %d wrong, relative error at most %.1e; pages and slots: %s\n",
              equal, close, wrong, worst, engine.isEmpty() ? "all free" : "some lost");
  return wrong || !engine.isEmpty();
}

} // namespace

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "engine: %s\n", error.what());
    return 1;
  }
}
