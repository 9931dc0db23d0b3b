// What kv-choose-layout refuses: modules without what it reads, and limits that nothing keeps.
// RUN: kvcc-opt %s -kv-choose-layout -verify-diagnostics -split-input-file

// expected-error @below {{expected attribute kv.objective on the module, such as #kv.objective<budget = 4>, but got none}}
module @no_objective attributes {kv.target = #kv.target<cpu, "generic">} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// expected-error @below {{expected attribute kv.objective on the module}}
module @other_objective attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = 4} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// expected-error-re @below {{expected {{.*}}kv.target{{.*}}, but got none}}
module @no_target attributes {kv.objective = #kv.objective<budget = 4>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

module @no_facts attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  // expected-error @below {{expected q_heads, kv_heads, head_dim and dtype to choose by, but got none}}
  kv.layer 1 {key = #kv.quant<f16>}
}

// -----

// expected-error @below {{expected a budget from 2.25 to 16.00 bits, but got 2.20}}
module @small_budget attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 2.2>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// expected-error @below {{expected a budget from 2.25 to 16.00 bits, but got 16.10}}
module @large_budget attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 16.1>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// Wide heads have fewer scales, and numbers as they are may have 32 bits.
// expected-error @below {{expected a budget from 2.13 to 32.00 bits, but got 1.00}}
module @wide attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 1>} {
  kv.layer 0 {q_heads = 8, kv_heads = 8, head_dim = 128, dtype = f32}
}

// -----

// A side that is given bounds the range.
// expected-error @below {{expected a budget from 5.25 to 12.12 bits, but got 4.00}}
module @given attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
              key = #kv.quant<i8, map = sym, group = 1x64, scale = f16>}
}

// -----

// So does what was measured.
// expected-error @below {{expected a budget from 4.25 to 16.00 bits, but got 4.00}}
module @measured attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4>} {
  kv.layer 0 {
    q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
    measured = [#kv.measured<key, <i4, map = sym, group = 1x64, scale = f16>, damage = 1.0e-3>,
                #kv.measured<value, <i4, map = sym, group = 1x64, scale = f16>, damage = 1.0e-3>]}
}

// -----

// 2.25 bits of 2 x 3 x 64 numbers for 32768 tokens are 3538944 bytes, windows of 160 tokens 122880.
// expected-error @below {{expected memory of at least 7323648 bytes for 2 sequences of 32768 tokens, but got 7323647}}
module @memory attributes {
    kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<memory = 7323647, batch = 2>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// Layers without quantization need memory too: 128 tokens of 768 bytes.
// expected-error @below {{expected memory of at least 3760128 bytes for 1 sequences of 32768 tokens, but got 1000}}
module @memory_of_all attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<memory = 1000>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, reach = #kv.reach<sliding>, window_tokens = 128}
}

// -----

// expected-error @below {{expected limits that go together, but max_kl = 1.00e-05 needs 8.25 bits and the budget or memory allows 8.00}}
module @contradiction attributes {
    kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 8, max_kl = 1.0e-5>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// expected-error @below {{expected limits that go together, but max_kl = 1.00e-05 needs 8.25 bits and the budget or memory allows 8.00}}
module @contradiction_of_memory attributes {
    kv.target = #kv.target<cpu, "generic">,
    kv.objective = #kv.objective<budget = 8, max_kl = 1.0e-5, prefer = memory>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}
