// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Text of the kv dialect: a valid module prints as text that reads back as the same module, and the selection passes
// end with a valid module or an error.
#include "test/fuzz/FuzzTarget.h"

#include "dialect/Kv.h"
#include "passes/Passes.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"

using namespace kvcc;

static std::string print(mlir::Operation *op) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  op->print(stream);
  return text;
}

/// The selection passes over a module of few layers; more take longer and reach nothing else.
static void choose(mlir::ModuleOp module) {
  int64_t layers = 0, measured = 0;
  module.walk([&](kv::LayerOp layer) {
    ++layers;
    if (mlir::ArrayAttr list = layer.getMeasuredAttr())
      measured += int64_t(list.size());
  });
  if (layers == 0 || layers > 12 || measured > 100)
    return;
  mlir::MLIRContext *context = module.getContext();
  for (auto [name, text] : {std::pair(kTargetAttrName, "#kv.target<cpu, \"generic\">"),
                            std::pair(kObjectiveAttrName, "#kv.objective<budget = 4.0>")})
    if (!module->hasAttr(name))
      module->setAttr(name, mlir::parseAttribute(text, context));
  mlir::PassManager manager(context);
  buildSelectionPipeline(manager);
  if (succeeded(manager.run(module)))
    fuzz::require(succeeded(mlir::verify(module)), "what the selection passes leave is valid");
}

static void run(llvm::StringRef bytes) {
  // The rest is upstream's parser alone.
  if (!bytes.contains("kv."))
    return;
  mlir::MLIRContext &context = fuzz::getContext();
  mlir::ScopedDiagnosticHandler quiet(&context, [](mlir::Diagnostic &) {});
  mlir::ParserConfig parser(&context);
  std::string text = bytes.str(); // MLIR's lexer counts on the zero behind it
  auto module = mlir::parseSourceString<mlir::ModuleOp>(text, parser);
  if (!module)
    return;
  std::string first = print(*module);
  auto again = mlir::parseSourceString<mlir::ModuleOp>(first, parser);
  fuzz::require(bool(again), "what is printed can be read");
  fuzz::require(print(*again) == first, "what is read back prints alike");
  choose(*module);
}

/// The modules of the tests of dialect and passes that hold `word`.
static std::vector<std::string> getModules(llvm::StringRef word) {
  std::vector<std::string> seeds;
  for (const char *folder : {"Dialect", "Passes"})
    for (const std::string &file : fuzz::readFiles(folder, ".mlir")) {
      llvm::SmallVector<llvm::StringRef> modules;
      llvm::StringRef(file).split(modules, "// -----");
      for (llvm::StringRef module : modules) {
        // Comments would only draw mutations.
        llvm::SmallVector<llvm::StringRef> lines;
        std::string text;
        module.split(lines, '\n', -1, /*KeepEmpty=*/false);
        for (llvm::StringRef line : lines)
          if (llvm::StringRef code = line.split("//").first.rtrim(); !code.empty())
            text += code.str() + "\n";
        if (llvm::StringRef(text).contains(word) && text.size() < 16384)
          seeds.push_back(text);
      }
    }
  return seeds;
}

const fuzz::Target fuzz::assembly = {"assembly", run, [] { return getModules("kv."); }};
// The same for layers alone, since few modules of the tests have any.
const fuzz::Target fuzz::layers = {"layers", run, [] { return getModules("kv.layer"); }};
