// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc bench: the time of a decode step, schemes interleaved in one run, beside the bandwidth of that run.
#include "tools/kvcc/Commands.h"
#include "tools/kvcc/Measure.h"

#include "runtime/Bandwidth.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>
#include <cstring>
#include <thread>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::benchCommand("bench", "measure the time of a decode step");
static KernelOptions kernelOptions(benchCommand);
static cl::list<std::string> schemeLists("scheme", cl::desc("quantization schemes, separated by commas"),
                                         cl::sub(benchCommand));
static cl::opt<std::string> target("target", cl::desc("cpu, cpu:generic, ..."), cl::init("cpu"), cl::sub(benchCommand));
static cl::list<int64_t> contexts("ctx", cl::desc("tokens of each sequence"), cl::CommaSeparated,
                                  cl::sub(benchCommand));
static cl::list<int64_t> batches("batch", cl::desc("sequences; default 1"), cl::CommaSeparated, cl::sub(benchCommand));
static cl::list<int64_t> threadCounts("threads", cl::desc("threads; default: one per processor"), cl::CommaSeparated,
                                      cl::sub(benchCommand));
static cl::opt<int> rounds("rounds", cl::desc("measured steps of each scheme"), cl::init(30), cl::sub(benchCommand));
static cl::opt<bool> warm("warm", cl::desc("use one copy of the cache, so that processor caches may hold it"),
                          cl::sub(benchCommand));
static cl::opt<bool> writers("writers", cl::desc("measure prefill and append instead"), cl::sub(benchCommand));
static cl::opt<std::string> outputFormat("o", cl::desc("table, md, csv or json"), cl::init("table"),
                                         cl::sub(benchCommand));

namespace {

/// Names of columns, and rows of cells.
using Table = std::vector<std::vector<std::string>>;

struct Row {
  std::string scheme, target;
  int64_t ctx, batch, threads;
  double medianUs, minUs;
  int64_t bytes;
  double gbps, bandwidthGbps, relError;
};

/// The schemes of all lists; commas inside <...> belong to a scheme.
std::vector<std::string> getSchemes() {
  std::vector<std::string> schemes;
  for (const std::string &list : schemeLists) {
    int depth = 0;
    schemes.emplace_back();
    for (char c : list) {
      depth += (c == '<') - (c == '>');
      if (c == ',' && depth == 0)
        schemes.emplace_back();
      else
        schemes.back() += c;
    }
  }
  return schemes;
}

Expected<std::vector<std::unique_ptr<Subject>>> makeSubjects(Compiler &compiler, const ModelLayer &layer,
                                                             ThreadPool &pool, int64_t ctx, int64_t batch) {
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const std::string &scheme : getSchemes()) {
    auto planned = kernelOptions.plan(compiler, layer, scheme, target, layer.model.dtype);
    if (!planned)
      return planned.takeError();
    auto subject = Subject::create(compiler, std::move(planned->plan), ctx, batch, pool);
    if (!subject)
      return subject.takeError();
    subjects.push_back(std::move(*subject));
  }
  if (!warm)
    Subject::makeCold(subjects);
  return subjects;
}

/// GB/s of copying, reads and writes counted once.
double measureCopy(ThreadPool &pool, unsigned threads) {
  constexpr size_t kBytes = 64 << 20, kPiece = 1 << 20;
  static AlignedBytes from(kBytes), to(kBytes);
  auto start = std::chrono::steady_clock::now();
  pool.run(kBytes / kPiece, threads, [&](int64_t piece) {
    std::memcpy(to.data() + size_t(piece) * kPiece, from.data() + size_t(piece) * kPiece, kPiece);
  });
  return double(kBytes) / std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

constexpr StringLiteral kWriterColumns[] = {"scheme",     "target",       "ctx",       "batch",
                                            "threads",    "step_us",      "append_us", "append_part",
                                            "prefill_us", "prefill_gbps", "copy_gbps", "prefill_part"};

/// Rows of writers: an append per token (flushes included) as a part of the step, a prefill as a part of copying its
/// keys and values.
Error measureWriters(Compiler &compiler, const ModelLayer &layer, ThreadPool &pool, int64_t ctx, int64_t batch,
                     Table &table) {
  auto subjects = makeSubjects(compiler, layer, pool, ctx, batch);
  if (!subjects)
    return subjects.takeError();
  for (int64_t threads : threadCounts) {
    std::vector<std::vector<double>> steps(subjects->size()), appends(steps), parts(steps), prefills(steps);
    std::vector<double> rates;
    for (int round = 0; round < rounds + 1; ++round) {
      double rate = measureCopy(pool, unsigned(threads));
      for (auto [i, subject] : enumerate(*subjects)) {
        auto prefill = subject->prefill(unsigned(threads));
        if (!prefill)
          return prefill.takeError();
        auto append = subject->append(unsigned(threads));
        if (!append)
          return append.takeError();
        if (round == 0) // to settle
          continue;
        steps[i].push_back(append->step);
        appends[i].push_back(append->append);
        parts[i].push_back(append->append / append->step);
        prefills[i].push_back(*prefill);
      }
      if (round)
        rates.push_back(rate);
    }
    for (auto [i, subject] : enumerate(*subjects)) {
      const Plan &plan = subject->getProgram().getPlan();
      double bytes = double(2 * batch * ctx * plan.shape.kvHeads * plan.shape.headDim) *
                     double(plan.cache.getDtype().getIntOrFloatBitWidth() / 8);
      double gbps = bytes / median(prefills[i]) / 1e3;
      table.push_back({getSchemes()[i], plan.target.name, std::to_string(ctx), std::to_string(batch),
                       std::to_string(threads), formatv("{0:f1}", median(steps[i])),
                       formatv("{0:f2}", median(appends[i])), formatv("{0:f3}", median(parts[i])),
                       formatv("{0:f1}", median(prefills[i])), formatv("{0:f2}", gbps),
                       formatv("{0:f2}", median(rates)), formatv("{0:f2}", gbps / median(rates))});
    }
  }
  return Error::success();
}

Expected<std::vector<Row>> measure(Compiler &compiler, const ModelLayer &layer, ThreadPool &pool,
                                   ReadBandwidth &bandwidth, int64_t ctx, int64_t batch) {
  std::vector<std::string> schemes = getSchemes();
  auto made = makeSubjects(compiler, layer, pool, ctx, batch);
  if (!made)
    return made.takeError();
  std::vector<std::unique_ptr<Subject>> subjects = std::move(*made);
  std::vector<Row> rows;
  for (int64_t threads : threadCounts) {
    std::vector<std::vector<double>> times(subjects.size());
    std::vector<double> rates;
    for (int round = 0; round < rounds + 2; ++round) {
      double rate = bandwidth.measure(pool, unsigned(threads));
      if (round >= 2) // two rounds to settle
        rates.push_back(rate);
      for (auto [subject, samples] : zip(subjects, times)) {
        auto time = subject->step(unsigned(threads));
        if (warm && time) // once more, after what the others and the measurement of the bandwidth left in the caches
          time = subject->step(unsigned(threads));
        if (!time)
          return time.takeError();
        if (round >= 2)
          samples.push_back(*time);
      }
    }
    for (auto [scheme, subject, samples] : zip(schemes, subjects, times)) {
      double middle = median(samples);
      rows.push_back({scheme, subject->getProgram().getPlan().target.name, ctx, batch, threads, middle,
                      *llvm::min_element(samples), subject->getBytes(), double(subject->getBytes()) / middle / 1e3,
                      median(rates), subject->getError()});
    }
  }
  return rows;
}

constexpr StringLiteral kColumns[] = {"scheme", "target", "ctx",  "batch",          "threads",  "median_us",
                                      "min_us", "bytes",  "gbps", "bandwidth_gbps", "rel_error"};

std::vector<std::string> toCells(const Row &row) {
  return {row.scheme,
          row.target,
          std::to_string(row.ctx),
          std::to_string(row.batch),
          std::to_string(row.threads),
          formatv("{0:f1}", row.medianUs),
          formatv("{0:f1}", row.minUs),
          std::to_string(row.bytes),
          formatv("{0:f2}", row.gbps),
          formatv("{0:f2}", row.bandwidthGbps),
          formatv("{0:e2}", row.relError)};
}

void printJson(ArrayRef<Row> rows) {
  json::Array list;
  for (const Row &row : rows)
    list.push_back(json::Object{{"scheme", row.scheme},
                                {"target", row.target},
                                {"ctx", row.ctx},
                                {"batch", row.batch},
                                {"threads", row.threads},
                                {"median_us", row.medianUs},
                                {"min_us", row.minUs},
                                {"bytes", row.bytes},
                                {"gbps", row.gbps},
                                {"bandwidth_gbps", row.bandwidthGbps},
                                {"rel_error", row.relError}});
  outs() << formatv("{0:2}", json::Value(std::move(list))) << "\n";
}

/// For people, or as Markdown.
void printTable(const Table &table) {
  std::vector<size_t> widths(table[0].size());
  for (const auto &cells : table)
    for (auto [width, cell] : zip(widths, cells))
      width = std::max(width, cell.size());
  bool markdown = outputFormat == "md";
  for (size_t i = 0; i < table.size(); ++i) {
    outs() << (markdown ? "|" : "");
    for (auto [width, cell] : zip(widths, table[i]))
      outs() << (markdown ? " " : "") << cell << std::string(width - cell.size(), ' ') << (markdown ? " |" : "  ");
    outs() << "\n";
    if (markdown && i == 0)
      outs() << "|" << join(std::vector<std::string>(widths.size(), " --- "), "|") << "|\n";
  }
}

void printCsv(const Table &table) {
  for (const auto &cells : table)
    outs() << join(cells, ",") << "\n";
}

void printRows(ArrayRef<Row> rows) {
  if (outputFormat == "json")
    return printJson(rows);
  Table table(1, std::vector<std::string>(std::begin(kColumns), std::end(kColumns)));
  for (const Row &row : rows)
    table.push_back(toCells(row));
  if (outputFormat == "csv")
    return printCsv(table);
  // People also want the share of the bandwidth.
  table[0].push_back("% of bandwidth");
  for (auto [i, row] : enumerate(rows))
    table[i + 1].push_back(formatv("{0:f1}", 100 * row.gbps / row.bandwidthGbps));
  printTable(table);
}

Error checkRanges(const cl::list<int64_t> &list, int64_t low, int64_t high) {
  for (int64_t value : list)
    if (Error error = checkRange(list, value, low, high))
      return error;
  return Error::success();
}

} // namespace

Error tool::runBench() {
  if (Error error = requireOptions({std::addressof(schemeLists), std::addressof(contexts)}))
    return error;
  if (outputFormat != "table" && outputFormat != "md" && outputFormat != "csv" && outputFormat != "json")
    return usageError("expected -o table, md, csv or json, but got '" + outputFormat + "'");
  if (Error error = checkRange(rounds, rounds, 1, 100000))
    return error;
  if (Error error = checkRanges(contexts, 1, 1 << 24))
    return error;
  if (Error error = checkRanges(batches, 1, 65535))
    return error;
  if (Error error = checkRanges(threadCounts, 1, 1024))
    return error;
  auto layer = kernelOptions.loadLayer();
  if (!layer)
    return layer.takeError();
  if (batches.empty())
    batches.push_back(1);
  if (threadCounts.empty())
    threadCounts.push_back(std::thread::hardware_concurrency());
  ThreadPool pool(unsigned(*llvm::max_element(threadCounts)));
  Compiler compiler;
  if (writers) {
    if (outputFormat == "json")
      return usageError("expected -o table, md or csv with --writers, but got 'json'");
    Table table(1, std::vector<std::string>(std::begin(kWriterColumns), std::end(kWriterColumns)));
    for (int64_t ctx : contexts)
      for (int64_t batch : batches)
        if (Error error = measureWriters(compiler, *layer, pool, ctx, batch, table))
          return error;
    outputFormat == "csv" ? printCsv(table) : printTable(table);
    return Error::success();
  }
  ReadBandwidth bandwidth;
  std::vector<Row> rows;
  for (int64_t ctx : contexts)
    for (int64_t batch : batches) {
      auto part = measure(compiler, *layer, pool, bandwidth, ctx, batch);
      if (!part)
        return part.takeError();
      append_range(rows, std::move(*part));
    }
  printRows(rows);
  return Error::success();
}
